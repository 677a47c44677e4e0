"""A script call: which decisions ride in it, and how each gets exactly one answer."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from data_plane.store.packing import FIGURES
from data_plane.store.ports import CounterCheck, StoreUnavailableError
from data_plane.store.redis.status import StoreStats

log = logging.getLogger(__name__)


class Answers:
    """Calls ``done`` and ``failed``, counts what went wrong, and lets no callback harm its neighbours."""

    def __init__(self, stats: StoreStats, now_us: Callable[[], int]) -> None:
        self._stats = stats
        self._now_us = now_us
        self._loop = asyncio.get_running_loop()
        self._refused: dict[str, list[CounterCheck]] = {}

    def give(self, checks: Sequence[CounterCheck], figures: Sequence[int], at: int = 1) -> None:
        """Answer decisions from a reply; the figures of the first begin at ``at``."""
        now_us = self._now_us()
        for check in checks:
            try:
                check.done(figures, at, now_us)
            except Exception:  # noqa: BLE001  the caller's own bug must not take its batch along
                self._broken_callback()
            at += FIGURES * len(check.keys)

    def pass_on(self, check: CounterCheck, error: StoreUnavailableError) -> None:
        """Answer one decision with an error that was counted where it arose."""
        try:
            check.failed(error, self._now_us())
        except Exception:  # noqa: BLE001  as above
            self._broken_callback()

    def refuse(self, checks: Sequence[CounterCheck], reason: str) -> None:
        """Answer these with ``StoreUnavailableError(reason)``."""
        if not checks:
            return
        self._stats.errors[reason] += len(checks)
        error = StoreUnavailableError(reason)
        for check in checks:
            self.pass_on(check, error)

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

    __slots__ = ("_expired", "_owner", "checks", "packed", "reloaded", "slot", "times")

    def __init__(
        self,
        *,
        owner: "CallOwner",
        checks: list[CounterCheck],
        times: list[float],
        packed: bytes,
        slot: int | None,
    ) -> None:
        self._owner = owner
        self.checks = checks
        self.times = times
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
    def expired(self) -> list[CounterCheck]:
        """The decisions that were given up."""
        return self.checks[: self._expired]

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

    def deliver(self, answers: Answers, figures: Sequence[int]) -> None:
        """Answer every decision that was not given up meanwhile. Raises ``ValueError`` where the reply is no answer."""
        checks, start = self.checks, self._expired
        limits = sum([len(check.keys) for check in checks])
        if len(figures) != 1 + FIGURES * limits:
            raise ValueError(f"{len(figures)} figures for {limits} limits")
        self._expired = len(checks)
        if start:
            at = 1 + FIGURES * sum([len(check.keys) for check in checks[:start]])
            answers.give(checks[start:], figures, at)
        else:
            answers.give(checks, figures)

    def on_reply(self, reply: object) -> None:
        """A reply of the link is for this call."""
        self._owner.on_reply(self, reply)


class CallOwner:
    """Who sent a call and reads its reply."""

    def on_reply(self, call: Call, reply: object) -> None:
        """Read the reply to ``call``."""
        raise NotImplementedError
