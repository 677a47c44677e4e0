"""Usage on its way, second half: from the region's stream to the control plane, by one agent at a time."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.usage.flusher import StreamEntry, UsageStream
from tidegate.contract.usage import MAX_BATCHES, MAX_SHIPMENT_BYTES, ShipmentAnswer

log = structlog.get_logger()

SHIP_EVERY_S = 0.3
"""With the pause of the nodes' flushes, what was counted a second ago is with the control plane: what an emptied store
loses is a second's."""
LEASE_EVERY_US = 1_000_000
LOOK_EVERY_S = 0.02
SAY_COMPLETE_EVERY_S = 3.0
LONGEST_BACKOFF_S = 15.0


class ControlPlaneAwayError(Exception):
    """The control plane did not answer, or could not take the shipment now."""


class UsageSink(Protocol):
    """The way to the control plane."""

    async def ship(self, batches: Sequence[bytes], complete_until_ms: int | None) -> ShipmentAnswer:
        """Deliver batches; when this returns they are committed. Raises ``ControlPlaneAwayError``."""
        ...


class UsageShipper:
    """Sends the region's stream to the control plane, while this agent has the lease on it.

    ``random`` gives floats in [0, 1) for jitter.
    """

    def __init__(
        self, node: str, stream: UsageStream, sink: UsageSink, clock: Clock, random: Callable[[], float]
    ) -> None:
        self._node = node
        self._stream = stream
        self._sink = sink
        self._clock = clock
        self._random = random
        self._said_complete_us = 0
        self._leased_us = 0
        self._turn = asyncio.Lock()
        self.has_lease = False
        """Whether this agent ships for the region now."""
        self.lag_s = 0.0
        """How long the oldest batch in the stream had waited when this agent last looked; 0 where another one ships."""
        self.shipped_batches = 0
        self.refused_batches = 0
        self.failures = 0

    async def run(self) -> None:
        """Ship a few times a second while there is something to ship, for ever."""
        backoff_s = SHIP_EVERY_S
        trouble: str | None = None
        while True:
            try:
                # An agent whose line is down lets its lease run out, so that another one tries.
                if not 0 <= self._clock.now_us() - self._leased_us < LEASE_EVERY_US:
                    self._leased_us = self._clock.now_us()
                    self.has_lease = await self._stream.hold_lease(self._node)
                if self.has_lease:
                    await self.ship()
                    if trouble is not None:
                        log.info("usage_shipped_again")
                    trouble = None
                else:
                    self.lag_s = 0.0
                backoff_s = SHIP_EVERY_S
            except StoreUnavailableError as error:
                log.debug("usage_not_shipped", reason=error.reason)
            except ControlPlaneAwayError as error:
                if str(error) != trouble:
                    log.warning("usage_not_shipped", reason=str(error))
                trouble = str(error)
                self.failures += 1
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
            await asyncio.sleep(SHIP_EVERY_S + self._random() * (backoff_s - SHIP_EVERY_S))

    async def hand_over(self) -> None:
        """Let another agent ship at once."""
        if self.has_lease:
            self.has_lease = False
            with contextlib.suppress(StoreUnavailableError):
                await self._stream.release_lease(self._node)

    async def ship_all_until_now(self) -> None:
        """Send all that nodes have counted up to now, once they have written it. Raises as ``ship``."""
        asked_us = self._clock.now_us()
        while True:
            until_us = await self._stream.flushed_until_us(self._clock.now_us())
            if until_us is None or until_us >= asked_us:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        await self.ship()

    async def ship(self) -> None:
        """Send all that is in the stream now. An entry goes only once the control plane has answered for it.

        Raises ``StoreUnavailableError``, ``ControlPlaneAwayError``.
        """
        async with self._turn:
            await self._ship()

    async def _ship(self) -> None:
        now_us = self._clock.now_us()
        # read before the stream is: what was flushed by then is in it
        until_us = await self._stream.flushed_until_us(now_us)
        until_ms = None if until_us is None else until_us // 1_000
        while True:
            entries = await self._stream.oldest(MAX_BATCHES)
            self.lag_s = _waited_s(entries[0].id, now_us) if entries else 0.0
            part = _that_fits(entries)
            at_end = len(part) == len(entries) < MAX_BATCHES
            if not part and now_us - self._said_complete_us < SAY_COMPLETE_EVERY_S * 1e6:
                return
            answer = await self._sink.ship([entry.packed for entry in part], until_ms if at_end else None)
            for refused in answer.refused:
                self.refused_batches += 1
                log.error("usage_batch_refused", reason=refused.reason)
                if 0 <= refused.position < len(part):
                    await self._stream.set_aside(part[refused.position].packed, refused.reason)
            await self._stream.settle([entry.id for entry in part])
            self.shipped_batches += len(part)
            if at_end:
                self._said_complete_us = now_us
                return
            await self._stream.hold_lease(self._node)


def _waited_s(entry_id: bytes, now_us: int) -> float:
    """Since when an entry is in the stream: its id begins with the store's milliseconds since the epoch."""
    return max(0.0, now_us / 1_000_000 - int(entry_id.partition(b"-")[0]) / 1_000)


def _that_fits(entries: Sequence[StreamEntry]) -> Sequence[StreamEntry]:
    """As many of the oldest as a shipment may hold; at least one."""
    size = 0
    for number, entry in enumerate(entries):
        size += len(entry.packed) + 8
        if size > MAX_SHIPMENT_BYTES and number:
            return entries[:number]
    return entries
