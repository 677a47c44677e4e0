"""The second half of usage: one agent of the region ships the stream to the control plane."""

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
"""Together with the nodes' flushes, counts reach the control plane within a second; an emptied store loses no more."""
LEASE_EVERY_US = 1_000_000
POLL_EVERY_S = 0.02
REPORT_COMPLETE_EVERY_S = 3.0
MAX_BACKOFF_S = 15.0


class ControlPlaneUnavailableError(Exception):
    """The control plane gave no answer, or refused a message for now."""


class UsageSink(Protocol):
    """The way to the control plane."""

    async def ship(self, batches: Sequence[bytes], complete_until_ms: int | None) -> ShipmentAnswer:
        """Deliver batches; they are committed when this returns. Raises ``ControlPlaneUnavailableError``."""
        ...


class UsageShipper:
    """Sends the region's stream to the control plane while this agent holds the lease.

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
        self._reported_complete_us = 0
        self._leased_us = 0
        self._turn = asyncio.Lock()
        self.has_lease = False
        """Whether this agent ships for the region."""
        self.lag_s = 0.0
        """How long the oldest batch in the stream had waited at the last check; 0 while another agent ships."""
        self.shipped_batches = 0
        self.refused_batches = 0
        self.failures = 0

    async def run(self) -> None:
        """Ship a few times a second, for ever."""
        backoff_s = SHIP_EVERY_S
        reason: str | None = None
        while True:
            try:
                # An agent that cannot reach the control plane lets its lease expire, so that another one tries.
                if not 0 <= self._clock.now_us() - self._leased_us < LEASE_EVERY_US:
                    self._leased_us = self._clock.now_us()
                    self.has_lease = await self._stream.hold_lease(self._node)
                if self.has_lease:
                    await self.ship()
                    if reason is not None:
                        log.info("usage_shipped_again")
                    reason = None
                else:
                    self.lag_s = 0.0
                backoff_s = SHIP_EVERY_S
            except StoreUnavailableError as error:
                log.debug("usage_not_shipped", reason=error.reason)
            except ControlPlaneUnavailableError as error:
                if str(error) != reason:
                    log.warning("usage_not_shipped", reason=str(error))
                reason = str(error)
                self.failures += 1
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
            await asyncio.sleep(SHIP_EVERY_S + self._random() * (backoff_s - SHIP_EVERY_S))

    async def hand_over(self) -> None:
        """Release the lease, so that another agent ships at once."""
        if self.has_lease:
            self.has_lease = False
            with contextlib.suppress(StoreUnavailableError):
                await self._stream.release_lease(self._node)

    async def ship_all_until_now(self) -> None:
        """Send all counts of the nodes up to now, once they have written them. Raises as ``ship``."""
        asked_us = self._clock.now_us()
        while True:
            until_us = await self._stream.flushed_until_us(self._clock.now_us())
            if until_us is None or until_us >= asked_us:
                break
            await asyncio.sleep(POLL_EVERY_S)
        await self.ship()

    async def ship(self) -> None:
        """Send the whole stream. An entry is deleted once the control plane has acknowledged it.

        Raises ``StoreUnavailableError``, ``ControlPlaneUnavailableError``.
        """
        async with self._turn:
            await self._ship()

    async def _ship(self) -> None:
        now_us = self._clock.now_us()
        # read before the stream, which then contains all that was flushed until then
        until_us = await self._stream.flushed_until_us(now_us)
        until_ms = None if until_us is None else until_us // 1_000
        while True:
            entries = await self._stream.oldest(MAX_BATCHES)
            self.lag_s = _waited_s(entries[0].id, now_us) if entries else 0.0
            part = _fitting(entries)
            at_end = len(part) == len(entries) < MAX_BATCHES
            if not part and now_us - self._reported_complete_us < REPORT_COMPLETE_EVERY_S * 1e6:
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
                self._reported_complete_us = now_us
                return
            await self._stream.hold_lease(self._node)


def _waited_s(entry_id: bytes, now_us: int) -> float:
    """How long an entry has been in the stream; its id begins with the store's milliseconds since the epoch."""
    return max(0.0, now_us / 1_000_000 - int(entry_id.partition(b"-")[0]) / 1_000)


def _fitting(entries: Sequence[StreamEntry]) -> Sequence[StreamEntry]:
    """The oldest entries that fit into a shipment; at least one."""
    size = 0
    for number, entry in enumerate(entries):
        size += len(entry.packed) + 8
        if size > MAX_SHIPMENT_BYTES and number:
            return entries[:number]
    return entries
