"""A script call: which decisions ride in it, and how each gets exactly one answer."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from data_plane.adapters.redis.stats import StoreStats
from data_plane.domain.outcome import Outcome
from data_plane.services.ports import CounterCheck, StoreUnavailableError

log = logging.getLogger(__name__)


class ScriptCodec(NamedTuple):
    """The decision script and its wire: ``encode`` makes one argument a decision, ``decode`` reads a batch's reply."""

    source: str
    encode: Callable[[int, Sequence[bytes]], bytes]
    decode: Callable[[bytes, Sequence[int]], tuple[int, Sequence[list[Outcome]]]]


class Answers:
    """Calls ``done``, counts what went wrong, and lets no callback harm its neighbours."""

    def __init__(self, stats: StoreStats) -> None:
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._refused: dict[str, list[CounterCheck]] = {}

    def give(self, checks: Sequence[CounterCheck], outcomes: Sequence[list[Outcome]], now_us: int) -> None:
        """Answer decisions, each with its outcomes."""
        for check, own in zip(checks, outcomes, strict=True):
            try:
                check.done(own, now_us)
            except Exception:  # noqa: BLE001  the caller's own bug must not take its batch along
                self._broken_callback()

    def pass_on(self, check: CounterCheck, error: StoreUnavailableError) -> None:
        """Answer one decision with an error that was counted where it arose."""
        try:
            check.done(error, 0)
        except Exception:  # noqa: BLE001  as above
            self._broken_callback()

    def refuse(self, checks: Sequence[CounterCheck], reason: str) -> None:
        """Answer these with ``StoreUnavailableError(reason)``."""
        if not checks:
            return
        self._stats.errors[reason] += len(checks)
        error = StoreUnavailableError(reason)
        for check in checks:
            try:
                check.done(error, 0)
            except Exception:  # noqa: BLE001  the caller's own bug must not take its batch along
                self._broken_callback()

    def refuse_soon(self, check: CounterCheck, reason: str) -> None:
        """Refuse on the loop's next turn. Within ``submit`` a pipelining caller would recurse, one level a request."""
        if not self._refused:
            self._loop.call_soon(self.flush)
        self._refused.setdefault(reason, []).append(check)

    def flush(self) -> None:
        """Answer those that were to be refused soon."""
        refused, self._refused = self._refused, {}
        for reason, checks in refused.items():
            self.refuse(checks, reason)

    def _broken_callback(self) -> None:
        self._stats.callback_errors += 1
        if self._stats.callback_errors == 1:
            log.exception("a decision's callback raised; further ones are only counted")


class Call:
    """One script call. Its decisions are in the order of ``times`` (loop seconds), so they expire from the front."""

    __slots__ = ("_expired", "_owner", "checks", "counts", "packed", "reloaded", "slot", "times")

    def __init__(
        self,
        *,
        owner: "CallOwner",
        checks: list[CounterCheck],
        times: list[float],
        counts: list[int],
        packed: bytes,
        slot: int | None,
    ) -> None:
        self._owner = owner
        self.checks = checks
        self.times = times
        self.counts = counts
        self.packed = packed
        self.slot = slot
        self.reloaded = False
        self._expired = 0

    @property
    def unanswered(self) -> list[CounterCheck]:
        """The decisions that have no answer yet."""
        return self.checks[self._expired :] if self._expired else self.checks

    @property
    def unanswered_times(self) -> list[float]:
        """When those were submitted."""
        return self.times[self._expired :] if self._expired else self.times

    @property
    def is_late(self) -> bool:
        """Whether any of its decisions has been given up."""
        return self._expired > 0

    def expire(self, horizon: float) -> list[CounterCheck]:
        """Give up on the decisions submitted at or before ``horizon``; returns them."""
        start = end = self._expired
        times = self.times
        while end < len(times) and times[end] <= horizon:
            end += 1
        self._expired = end
        return self.checks[start:end]

    def give_up(self) -> list[CounterCheck]:
        """Give up on all that is left; returns them."""
        left = self.unanswered
        self._expired = len(self.checks)
        return left

    def deliver(self, answers: Answers, outcomes: Sequence[list[Outcome]], now_us: int) -> None:
        """Answer every decision that was not given up meanwhile."""
        checks, start = self.checks, self._expired
        self._expired = len(checks)
        if start:
            checks, outcomes = checks[start:], outcomes[start:]
        answers.give(checks, outcomes, now_us)

    def on_reply(self, reply: object) -> None:
        """A reply of the link is for this call."""
        self._owner.on_reply(self, reply)


class CallOwner:
    """Who sent a call and reads its reply."""

    def on_reply(self, call: Call, reply: object) -> None:
        """Read the reply to ``call``."""
        raise NotImplementedError
