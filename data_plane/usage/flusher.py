"""The first half of usage: a node writes its counts to the region's stream, about twice a second.

A batch keeps its name (node, incarnation, sequence) however often it is written or sent, and the control plane takes
each name once. Counts that cannot be written stay in memory; batches that cannot be sent stay in the stream.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import structlog

from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.usage.tally import Callers, Open, UsageTally, place_of
from tidegate.contract.usage import MOST_UNITS, Place, UsageBatch, UsageCell, pack

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


class StreamEntry(NamedTuple):
    """A packed batch in the stream, by the stream's own id."""

    id: bytes
    packed: bytes


class UsageStream(Protocol):
    """The region's stream of batches. Every method raises ``StoreUnavailableError``."""

    @property
    def fill(self) -> float:
        """How full it was at the last check; 1 is its bound."""
        ...

    async def add(self, packed: bytes) -> bool:
        """Append a batch. Returns ``False``, with nothing written, if the stream has reached its bound."""
        ...

    async def note_flushed(self, node: str, until_us: int) -> None:
        """Note that all counts of ``node`` before ``until_us`` are in the stream."""
        ...

    async def flushed_until_us(self, now_us: int) -> int | None:
        """Until when every node alive at ``now_us`` has flushed; ``None`` without such nodes."""
        ...

    async def hold_lease(self, node: str) -> bool:
        """Take or renew the region's lease on shipping. Returns whether ``node`` holds it."""
        ...

    async def release_lease(self, node: str) -> None:
        """Release the lease, if ``node`` holds it."""
        ...

    async def oldest(self, count: int) -> Sequence[StreamEntry]:
        """The oldest batches."""
        ...

    async def settle(self, ids: Sequence[bytes]) -> None:
        """Delete batches that the control plane has."""
        ...

    async def set_aside(self, packed: bytes, reason: str) -> None:
        """Keep a batch that the control plane refused, for an operator to inspect."""
        ...


class _NamedBatch(NamedTuple):
    """A named batch; it is written unchanged until the stream has it."""

    packed: bytes
    requests: int


class UsageFlusher:
    """Writes this node's counts to the region's stream.

    ``incarnation`` names this run of the process: hex digits that no other run has.
    """

    def __init__(self, node: str, incarnation: str, tally: UsageTally, stream: UsageStream, clock: Clock) -> None:
        self._node = node
        self._incarnation = incarnation
        self._tally = tally
        self._stream = stream
        self._clock = clock
        self._sequence = 0
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
            self._collect(now_us)
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

    def _collect(self, now_us: int) -> None:
        """Collect new counts. A decision counts in the hour of its collection, which is at most a second later."""
        # counts of the hour's end are collected just after it
        held = self._held.setdefault((now_us - _LATE_US) // HOUR_US, {})
        for limit_set, callers in self._tally.take().items():
            known = held.get(limit_set)
            if known is not None:
                self._add(known, callers)
            elif self.held_cells + len(callers) <= MAX_HELD_CELLS:
                held[limit_set] = callers
                self.held_cells += len(callers)
            else:
                self._add(held.setdefault(limit_set, {}), callers)
        self._held = {hour: limit_sets for hour, limit_sets in self._held.items() if any(limit_sets.values())}

    def _add(self, known: Callers, callers: Callers) -> None:
        for principal, counts in callers.items():
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
