"""Counts usage, and about twice a second writes the counts to the region's stream.

A decision costs two lookups and two additions; everything else is done at collection. Counts are by limit set and by
caller. Each collection starts with empty dictionaries, so that old limit sets and callers are released.

A batch keeps its name (node, incarnation, sequence) however often it is written or sent, and the control plane takes
each name once. Counts that cannot be written stay in memory; batches that cannot be sent stay in the stream.
"""

import asyncio
import time
from typing import NamedTuple

import msgspec
import structlog

from data_plane.config.index import Principal
from data_plane.config.limit_set import LimitSet
from data_plane.decide.pending_check import PendingCheck, Verdict
from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.usage.stream import RedisUsageStream
from tidegate.contract.usage import MOST_UNITS, OUTSIDE_PLANS, Denials, LimitName, Place, UsageBatch, UsageCell, pack

log = structlog.get_logger()

FLUSH_EVERY_S = 0.6
"""A killed node loses its last second at most, the delay of a busy machine included."""
SLOW_FLUSH_EVERY_S = 5.0
"""Used while the stream is more than half full: fewer, larger batches make its room last for hours."""
CELLS_A_BATCH = 200
"""Cells packed at once: this takes a third of a millisecond, during which nothing is decided."""
PAUSE_S = 0.001
"""Pause after a batch; without it a busy second's cells would block decisions for tens of milliseconds."""
MAX_HELD_CELLS = 200_000
HOUR_US = 3_600_000_000
_LATE_US = 250_000

DenyingLimits = tuple[tuple[int, ...], tuple[int, ...]]
"""Places of the limits that denied, and of the shadow limits that would have."""


_BY_THE_ONLY: DenyingLimits = ((0,), ())
_BY_NONE: DenyingLimits = ((), ())


class Counts(msgspec.Struct, gc=False):
    """The requests of one caller under one limit set."""

    allowed: int = 0
    cost: int = 0
    """Units that the allowed requests took."""
    denied_by: dict[DenyingLimits, tuple[int, int]] | None = None
    """Denied requests and their units, by the limits that denied."""

    def add(self, other: "Counts") -> None:
        """Add other counts."""
        self.allowed += other.allowed
        self.cost += other.cost
        for limits, (requests, cost) in (other.denied_by or {}).items():
            self.deny(limits, requests, cost)

    def deny(self, limits: DenyingLimits, requests: int, cost: int) -> None:
        """Count requests that limits denied, or would have."""
        if self.denied_by is None:
            self.denied_by = {}
        requests_before, cost_before = self.denied_by.get(limits, (0, 0))
        self.denied_by[limits] = (requests_before + requests, cost_before + cost)

    def denials(self) -> tuple[Denials, ...]:
        """The denied requests, as they travel."""
        if self.denied_by is None:
            return ()
        return tuple(
            Denials(denied, shadow, requests, min(cost, MOST_UNITS))
            for (denied, shadow), (requests, cost) in self.denied_by.items()
        )

    def requests(self) -> int:
        """Number of requests."""
        if self.denied_by is None:
            return self.allowed
        return self.allowed + sum(denial.requests for denial in self.denials() if denial.stopped)


Callers = dict[Principal | None, Counts]
Open = dict[LimitSet, Callers]
"""Counts by limit set and by caller (``None``: anonymous)."""


class UsageTally:
    """Counts decisions until they are collected; an ``Observer`` of the decider.

    Requests of cost 0 and requests to exempt endpoints are no usage.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: Open = {}

    def passed(self, check: PendingCheck, *, degraded: bool) -> None:  # noqa: ARG002  an observer's shape
        """Count a plainly allowed check."""
        cost = check.cost
        if not cost:
            return
        try:
            counts = self._open[check.limit_set][check.principal]
        except KeyError:
            counts = self._begin(check.limit_set, check.principal)
        counts.allowed += 1
        counts.cost += cost

    def decided(self, check: PendingCheck, verdict: Verdict, now_us: int) -> None:  # noqa: ARG002  an observer's shape
        """Count any other check."""
        cost = check.cost
        if not cost:
            return
        try:
            counts = self._open[check.limit_set][check.principal]
        except KeyError:
            counts = self._begin(check.limit_set, check.principal)
        if verdict.allowed:
            counts.allowed += 1
            counts.cost += cost
            if verdict.shadow_denied:
                counts.deny(_denying_limits(verdict), 1, cost)
        else:
            counts.deny(_denying_limits(verdict), 1, cost)

    def held(self, check: PendingCheck, requests: int, cost: int) -> None:
        """Count units of a lease or a reservation; negative figures are units that came back."""
        counts = self._begin(check.limit_set, check.principal)
        counts.allowed += requests
        counts.cost += cost

    def not_held(self, verdict: Verdict) -> None:
        """Count a lease or a reservation that was denied: one request."""
        check = verdict.check
        self._begin(check.limit_set, check.principal).deny(_denying_limits(verdict), 1, check.cost)

    def repeated(self, check: PendingCheck, denied: tuple[int, ...], requests: int) -> None:
        """Count requests that a client library denied, by these places of limits; ``check.cost`` is their sum."""
        self._begin(check.limit_set, check.principal).deny((denied, ()), requests, check.cost)

    def take(self) -> Open:
        """Take the counts since the last call."""
        taken, self._open = self._open, {}
        return taken

    def _begin(self, limit_set: LimitSet, principal: Principal | None) -> Counts:
        return self._open.setdefault(limit_set, {}).setdefault(principal, Counts())


def _denying_limits(verdict: Verdict) -> DenyingLimits:
    """The places of limits that denied, and of those that would have."""
    limits = verdict.check.limit_set.limits
    if len(verdict.outcomes) == 1:
        return _BY_THE_ONLY if verdict.violated else _BY_THE_ONLY[::-1] if verdict.shadow_denied else _BY_NONE
    denying = [place for place, outcome in enumerate(verdict.outcomes) if not outcome.allowed]
    denied = tuple(place for place in denying if not limits[place].rule.shadow)
    return denied, tuple(place for place in denying if limits[place].rule.shadow)


def place_of(limit_set: LimitSet) -> Place:
    """The limits of a limit set by name, for the control plane."""
    names = tuple(
        LimitName(limit_set.plan if limit.rule.id in limit_set.of_plan else OUTSIDE_PLANS, limit.rule.name)
        for limit in limit_set.limits
    )
    return Place(limit_set.plan, limit_set.endpoint, names)


class _NamedBatch(NamedTuple):
    """A named batch; it is written unchanged until the stream has it."""

    packed: bytes
    requests: int


class UsageFlusher:
    """Writes this node's counts to the region's stream.

    ``incarnation`` names this run of the process: hex digits that no other run has.
    """

    def __init__(self, node: str, incarnation: str, tally: UsageTally, stream: RedisUsageStream, clock: Clock) -> None:
        self._node = node
        self._incarnation = incarnation
        self._tally = tally
        self._stream = stream
        self._clock = clock
        self._sequence = 0
        self._taken: list[tuple[LimitSet, Callers]] = []
        """Counts that are not yet added to those that are held."""
        self._held: dict[int, Open] = {}
        self._next: _NamedBatch | None = None
        self._turn = asyncio.Lock()
        self._took_s = 0.0
        self._is_losing = False
        self.held_cells = 0
        """Cells in this node's memory only."""
        self.flushed_requests = 0
        self.lost_requests = 0
        """Counted requests that were dropped: the store was unavailable, or the stream full, for too long."""
        self.stream_full = False

    async def run(self) -> None:
        """Flush for ever: at once, then about twice a second and at the end of each hour.

        From the first flush on the region's usage is complete only up to this node's last flush.
        """
        await self.flush(PAUSE_S)
        while True:
            await asyncio.sleep(self.pause_s())
            await self.flush(PAUSE_S)

    def pause_s(self) -> float:
        """How long to count until the next flush, so that the oldest count is written in time; ends with the hour."""
        now_us = self._clock.now_us()
        every_s = SLOW_FLUSH_EVERY_S if self._stream.fill > 0.5 else FLUSH_EVERY_S
        # a count right after a flush has begun waits for that flush, the pause, and the next flush
        return max(0.01, min(every_s - 2 * self._took_s, (HOUR_US - now_us % HOUR_US) / 1e6))

    async def flush(self, pause_s: float = 0) -> None:
        """Write all counts in batches; counts that the store does not take stay for the next flush.

        ``pause_s`` is a pause after each batch, for other work on the event loop.
        """
        began_s = time.perf_counter()
        async with self._turn:
            now_us = self._clock.now_us()
            await self._collect(now_us, pause_s)
            try:
                while self._next is not None or self._held:
                    if not await self._write(now_us):
                        return
                    if pause_s and self._held:
                        await asyncio.sleep(pause_s)
                if self._is_losing:
                    log.warning("usage_no_longer_lost", lost_requests=self.lost_requests)
                self._is_losing = False
                await self._stream.note_flushed(self._node, now_us)
            except StoreUnavailableError as error:
                log.debug("usage_not_flushed", reason=error.reason, cells=self.held_cells)
            finally:
                self._took_s = time.perf_counter() - began_s

    async def _collect(self, now_us: int, pause_s: float) -> None:
        """Collect new counts. A decision counts in the hour of its collection, which is at most a second later.

        Adding them to counts that the store did not take pauses now and then.
        """
        # counts of the hour's end are collected just after it
        held = self._held.setdefault((now_us - _LATE_US) // HOUR_US, {})
        self._taken += self._tally.take().items()
        while self._taken:
            limit_set, callers = self._taken[-1]
            if limit_set not in held and self.held_cells + len(callers) <= MAX_HELD_CELLS:
                held[limit_set] = callers
                self.held_cells += len(callers)
                self._taken.pop()
                continue
            self._add(held.setdefault(limit_set, {}), callers)
            if not callers:
                self._taken.pop()
            elif pause_s:
                await asyncio.sleep(pause_s)
        self._held = {hour: limit_sets for hour, limit_sets in self._held.items() if any(limit_sets.values())}

    def _add(self, known: Callers, callers: Callers) -> None:
        """Move some of these counts there."""
        for _ in range(min(CELLS_A_BATCH, len(callers))):
            principal, counts = callers.popitem()
            before = known.get(principal)
            if before is not None:
                before.add(counts)
            elif self.held_cells < MAX_HELD_CELLS:
                known[principal] = counts
                self.held_cells += 1
            else:
                if not self._is_losing:
                    log.error("usage_lost", reason="the stream takes nothing, and memory for it is bounded")
                self._is_losing = True
                self.lost_requests += counts.requests()

    async def _write(self, now_us: int) -> bool:
        if self._next is None:
            self._next = self._name_next(now_us)
        written = await self._stream.add(self._next.packed)
        if self.stream_full == written:
            self.stream_full = not written
            log.warning("usage_stream_full" if not written else "usage_stream_has_room_again")
        if written:
            self.flushed_requests += self._next.requests
            self._next = None
        return written

    def _name_next(self, now_us: int) -> _NamedBatch:
        """Name the next batch, of the oldest hour. It never changes afterwards, as the stream may have it already."""
        hour = min(self._held)
        limit_sets = self._held[hour]
        places: list[Place] = []
        cells: list[UsageCell] = []
        requests = 0
        while limit_sets and len(cells) < CELLS_A_BATCH:
            limit_set, callers = next(iter(limit_sets.items()))
            place = len(places)
            places.append(place_of(limit_set))
            while callers and len(cells) < CELLS_A_BATCH:
                principal, counts = callers.popitem()
                client, key_id = ("", "") if principal is None else (principal.client.client, principal.key_id)
                allowed, cost = counts.allowed, counts.cost
                if not -MOST_UNITS <= cost <= MOST_UNITS:
                    cost = MOST_UNITS if cost > 0 else -MOST_UNITS
                if counts.denied_by is None:  # the common case, ten thousands of times a second
                    requests += allowed
                    cells.append(UsageCell(place, client, key_id, allowed, cost))
                else:
                    requests += counts.requests()
                    cells.append(UsageCell(place, client, key_id, allowed, cost, counts.denials()))
            if not callers:
                del limit_sets[limit_set]
        if not limit_sets:
            del self._held[hour]
        self.held_cells -= len(cells)
        self._sequence += 1
        batch = UsageBatch(
            node=self._node, incarnation=self._incarnation, sequence=self._sequence, hour=hour,
            until_ms=now_us // 1_000, places=tuple(places), cells=tuple(cells),
        )  # fmt: skip
        return _NamedBatch(pack(batch), requests)
