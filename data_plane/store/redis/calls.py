"""One script call: decisions are packed into it, it is written, its reply is read, each decision is answered once.

redis-py connects (TLS, AUTH, ACL, HELLO, SELECT); then ``Link`` takes over the transport. That skips redis-py's
per-command layer and asyncio's streams, whose reader task costs a wake-up for every reply.
"""

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable, Sequence
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol, cast

import hiredis

from data_plane.store.packing import FIGURES
from data_plane.store.ports import CounterCheck, StoreUnavailableError
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.status import StoreStats

if TYPE_CHECKING:
    from data_plane.store.redis.cluster import Cluster
    from data_plane.store.redis.connect import AnyConnection
    from data_plane.store.redis.shard import Shard

log = logging.getLogger(__name__)
_INCOMPLETE = object()


class CallBuilder:
    """Packs ``EVALSHA``: KEYS[1] is the dirty set, then every counter; one argument a decision."""

    def __init__(
        self, settings: RedisSettings, answers: "Answers", dirty_key: bytes, cluster: "Cluster | None"
    ) -> None:
        self._max_decisions = settings.max_batch_decisions
        self._max_limits = settings.max_batch_limits
        self._answers = answers
        self._dirty_key = dirty_key
        self._cluster = cluster

    def fitting(self, pending: list[CounterCheck]) -> int:
        """How many of the first decisions one call may carry; at least one."""
        counts = [len(check.keys) for check in pending[: self._max_decisions]]
        taken, limits = len(counts), sum(counts)
        while limits > self._max_limits and taken > 1:
            taken -= 1
            limits -= counts[taken]
        return taken

    def build(
        self, shard: "Shard", sha: bytes, checks: list[CounterCheck], times: list[float], slot: int | None
    ) -> "list[Call]":
        """One call with these decisions. One that cannot be encoded is refused, and the others travel alone."""
        try:
            keys = [key for check in checks for key in check.keys]
            arguments = [check.packed for check in checks]
            dirty_key = self._dirty_key if self._cluster is None else self._cluster.dirty_key_of(checks, slot)
            packed = pack_command(b"EVALSHA", sha, len(keys) + 1, dirty_key, *keys, *arguments)
        except Exception:  # noqa: BLE001  whatever is wrong with one decision, its neighbours must not suffer
            if len(checks) == 1:
                self._answers.refuse(checks, "script_error")
                return []
            alone = zip(checks, times, strict=True)
            return [call for check, time in alone for call in self.build(shard, sha, [check], [time], slot)]
        return [Call(shard=shard, checks=checks, times=times, packed=packed, slot=slot)]


def by_slot(
    cluster: "Cluster", checks: list[CounterCheck], times: list[float]
) -> dict[int, tuple[list[CounterCheck], list[float]]]:
    """Decisions and their times by slot: on a Cluster no script may see keys of two."""
    groups: dict[int, tuple[list[CounterCheck], list[float]]] = {}
    for check, time in zip(checks, times, strict=True):
        members, member_times = groups.setdefault(cluster.slot_of(check), ([], []))
        members.append(check)
        member_times.append(time)
    return groups


class Call:
    """One script call. Its decisions are in the order of ``times`` (loop seconds), so they expire from the front."""

    __slots__ = ("_expired", "_shard", "checks", "moves", "packed", "reloaded", "slot", "times")

    def __init__(
        self,
        *,
        shard: "Shard",
        checks: list[CounterCheck],
        times: list[float],
        packed: bytes,
        slot: int | None,
    ) -> None:
        self._shard = shard
        self.checks = checks
        self.times = times
        self.packed = packed
        self.slot = slot
        self.moves = 0
        """How often its decisions were sent on to another server."""
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

    def figures_in(self, reply: bytes) -> tuple[int, ...]:
        """The store's clock, then ``FIGURES`` for each limit. Raises ``struct.error`` where it is no such reply."""
        limits = sum([len(check.keys) for check in self.checks])
        return struct.unpack(f"<{1 + FIGURES * limits}q", reply)

    def deliver(self, answers: "Answers", figures: Sequence[int]) -> None:
        """Answer every decision that was not given up meanwhile."""
        checks, start = self.checks, self._expired
        self._expired = len(checks)
        if start:
            at = 1 + FIGURES * sum([len(check.keys) for check in checks[:start]])
            answers.give(checks[start:], figures, at)
        else:
            answers.give(checks, figures)

    def on_reply(self, reply: object) -> None:
        """A reply of the link is for this call."""
        self._shard.on_reply(self, reply)


class Answers:
    """Calls ``done`` and ``failed``, counts what went wrong, and lets no callback harm its neighbours."""

    def __init__(self, stats: StoreStats) -> None:
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._refused: dict[str, list[CounterCheck]] = {}

    def give(self, checks: Sequence[CounterCheck], figures: Sequence[int], at: int = 1) -> None:
        """Answer decisions from a reply; the figures of the first begin at ``at``."""
        now_us = time_ns() // 1_000
        for check in checks:
            try:
                check.done(figures, at, now_us)
            except Exception:  # noqa: BLE001  the caller's own bug must not take its batch along
                self._broken_callback()
            at += FIGURES * len(check.keys)

    def pass_on(self, check: CounterCheck, error: StoreUnavailableError) -> None:
        """Answer one decision with an error that was counted where it arose."""
        try:
            check.failed(error, time_ns() // 1_000)
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


class ReplyTaker(Protocol):
    """What waits for a reply."""

    def on_reply(self, reply: object) -> None:
        """Take the reply: bytes, int, list, None, or a ``hiredis.ReplyError``."""
        ...


class Link(asyncio.Protocol):
    """The pipelined connection. ``on_lost`` is called once, unless this process closed it."""

    def __init__(self, connection: "AnyConnection", on_lost: "Callable[[Link], None]") -> None:
        self._connection = connection
        self._on_lost = on_lost
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self.waiting: deque[ReplyTaker | None] = deque()
        self.is_lost = False
        self._transport, self._former = connection.hand_over(self)

    def send(self, packed: bytes, takers: tuple[ReplyTaker | None, ...]) -> None:
        """Write packed commands, one taker a command (``None``: the reply does not matter)."""
        self.waiting.extend(takers)
        if not self._transport.is_closing():
            self._transport.write(packed)

    def drop(self) -> None:
        """Give the connection up at once; ``on_lost`` follows on the loop."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand each complete reply to its taker."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                taker = self.waiting.popleft()
                if taker is not None:
                    taker.on_reply(reply)
        except (hiredis.ProtocolError, IndexError):
            # After an unexpected reply nobody knows which decision the next one answers.
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, and redis-py's stream, whose ``close`` waits for it."""
        self._former.connection_lost(exc)
        self._connection.forget()
        if not self.is_lost:
            self.is_lost = True
            self._on_lost(self)

    def eof_received(self) -> bool:
        """The server hung up: close."""
        return False

    async def close(self) -> None:
        """Close quietly: ``on_lost`` is not called."""
        self.is_lost = True
        self._transport.abort()
        await asyncio.sleep(0)


def pack_command(*parts: bytes | str | int | float) -> bytes:
    """A command in RESP."""
    packed: bytes = hiredis.pack_command(cast("Any", parts))  # its stub wants tuples of length one
    return packed
