"""Usage on its way, first half: from the node's counts to the region's stream, twice a second or nearly so.

A batch keeps its name (node, incarnation, sequence) however often it is written or sent, and whoever sends it: the
control plane takes each name once. What cannot be written stays here; what cannot be sent stays in the stream.
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
"""A node that is killed loses its last second at most, with what a busy machine takes to let it flush."""
SLOW_FLUSH_EVERY_S = 5.0
"""While the stream is more than half full: fewer and larger batches, so that its room lasts for hours."""
CELLS_A_BATCH = 200
"""What is packed in one go: about a third of a millisecond, in which nothing is decided."""
REST_S = 0.001
"""What decisions get between two batches: in one go, the cells of a busy second would keep them waiting for tens of
milliseconds."""
MAX_HELD_CELLS = 200_000
HOUR_US = 3_600_000_000
_A_LITTLE_US = 250_000


class StreamEntry(NamedTuple):
    """A packed batch in the stream, by the stream's own id."""

    id: bytes
    packed: bytes


class UsageStream(Protocol):
    """The region's stream of batches. Every method raises ``StoreUnavailableError``."""

    @property
    def fill(self) -> float:
        """How full it was when last looked at; 1 is its bound."""
        ...

    async def add(self, packed: bytes) -> bool:
        """Append a batch; ``False`` when the stream has reached its bound and nothing was written."""
        ...

    async def note_flushed(self, node: str, until_us: int) -> None:
        """Note that all that ``node`` counted before ``until_us`` is in the stream."""
        ...

    async def flushed_until_us(self, now_us: int) -> int | None:
        """Until when every node that is alive at ``now_us`` has flushed; ``None`` when there is none."""
        ...

    async def hold_lease(self, node: str) -> bool:
        """Take or keep the region's lease on shipping; whether ``node`` has it."""
        ...

    async def release_lease(self, node: str) -> None:
        """Give the lease up, if ``node`` has it."""
        ...

    async def oldest(self, count: int) -> Sequence[StreamEntry]:
        """The oldest batches."""
        ...

    async def settle(self, ids: Sequence[bytes]) -> None:
        """Forget batches that the control plane has."""
        ...

    async def set_aside(self, packed: bytes, reason: str) -> None:
        """Keep a batch that the control plane will never take, for whoever looks into it."""
        ...


class _Written(NamedTuple):
    """A batch that has its name: it is written as it is until it is known to be in the stream."""

    packed: bytes
    requests: int


class UsageFlusher:
    """Writes what this node counted to the region's stream.

    ``incarnation`` is this life of the process: hex digits that no other life has.
    """

    def __init__(self, node: str, incarnation: str, tally: UsageTally, stream: UsageStream, clock: Clock) -> None:
        self._node = node
        self._incarnation = incarnation
        self._tally = tally
        self._stream = stream
        self._clock = clock
        self._sequence = 0
        self._held: dict[int, Open] = {}
        self._next: _Written | None = None
        self._turn = asyncio.Lock()
        self._took_s = 0.0
        self._is_losing = False
        self.held_cells = 0
        """Cells that are in this node's memory only."""
        self.flushed_requests = 0
        self.lost_requests = 0
        """Requests that were counted but could not be held: the store was away, or the stream full, for too long."""
        self.stream_full = False

    async def run(self) -> None:
        """Flush every so often and at the end of each hour, for ever; at once to begin with.

        From its first flush on the region is complete only as far as this node says.
        """
        await self.flush(REST_S)
        while True:
            await asyncio.sleep(self.pause_s())
            await self.flush(REST_S)

    def pause_s(self) -> float:
        """How long to count before the next flush, so that the oldest of it is written in time; until the hour ends
        at most.
        """
        now_us = self._clock.now_us()
        every_s = SLOW_FLUSH_EVERY_S if self._stream.fill > 0.5 else FLUSH_EVERY_S
        # what is counted right after one flush has begun waits for its end, for the pause, and for the next one's end
        return max(0.01, min(every_s - 2 * self._took_s, (HOUR_US - now_us % HOUR_US) / 1e6))

    async def flush(self, rest_s: float = 0) -> None:
        """Write all there is, in batches; what the store does not take now is kept for the next time.

        ``rest_s``: how long to leave the loop to others after each batch.
        """
        began_s = time.perf_counter()
        async with self._turn:
            now_us = self._clock.now_us()
            self._collect(now_us)
            try:
                while self._next is not None or self._held:
                    if not await self._write(now_us):
                        return
                    if rest_s and self._held:
                        await asyncio.sleep(rest_s)
                if self._is_losing:
                    log.warning("usage_no_longer_lost", lost_requests=self.lost_requests)
                self._is_losing = False
                await self._stream.note_flushed(self._node, now_us)
            except StoreUnavailableError as error:
                log.debug("usage_not_flushed", reason=error.reason, cells=self.held_cells)
            finally:
                self._took_s = time.perf_counter() - began_s

    def _collect(self, now_us: int) -> None:
        """Take in what was counted. A decision counts in the hour in which it is collected, a second later at most."""
        # what was counted just before the hour ended is collected just after it
        held = self._held.setdefault((now_us - _A_LITTLE_US) // HOUR_US, {})
        for bound, callers in self._tally.take().items():
            there = held.get(bound)
            if there is not None:
                self._add(there, callers)
            elif self.held_cells + len(callers) <= MAX_HELD_CELLS:
                held[bound] = callers
                self.held_cells += len(callers)
            else:
                self._add(held.setdefault(bound, {}), callers)
        self._held = {hour: bounds for hour, bounds in self._held.items() if any(bounds.values())}

    def _add(self, there: Callers, callers: Callers) -> None:
        for principal, counts in callers.items():
            had = there.get(principal)
            if had is not None:
                had.add(counts)
            elif self.held_cells < MAX_HELD_CELLS:
                there[principal] = counts
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

    def _name_next(self, now_us: int) -> _Written:
        """The next batch, of the oldest hour. From here on it never changes: it may be in the stream already."""
        hour = min(self._held)
        bounds = self._held[hour]
        places: list[Place] = []
        cells: list[UsageCell] = []
        requests = 0
        while bounds and len(cells) < CELLS_A_BATCH:
            bound, callers = next(iter(bounds.items()))
            at = len(places)
            places.append(place_of(bound))
            while callers and len(cells) < CELLS_A_BATCH:
                principal, counts = callers.popitem()
                client, key_id = ("", "") if principal is None else (principal.client.client, principal.key_id)
                allowed, cost = counts.allowed, counts.cost
                if not -MOST_UNITS <= cost <= MOST_UNITS:
                    cost = MOST_UNITS if cost > 0 else -MOST_UNITS
                if counts.objected is None:  # nearly all, and there are ten thousands of them a second
                    requests += allowed
                    cells.append(UsageCell(at, client, key_id, allowed, cost))
                else:
                    requests += counts.requests()
                    cells.append(UsageCell(at, client, key_id, allowed, cost, counts.denials()))
            if not callers:
                del bounds[bound]
        if not bounds:
            del self._held[hour]
        self.held_cells -= len(cells)
        self._sequence += 1
        batch = UsageBatch(
            node=self._node, incarnation=self._incarnation, sequence=self._sequence, hour=hour,
            until_ms=now_us // 1_000, places=tuple(places), cells=tuple(cells),
        )  # fmt: skip
        return _Written(pack(batch), requests)
