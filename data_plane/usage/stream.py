"""The region's stream of usage: nodes append batches, and one agent of the region ships them to the control plane.

An entry leaves the stream once the control plane has acknowledged it.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple

import aiohttp
import msgspec
import structlog
from redis.exceptions import ResponseError

from data_plane.process import ControlPlaneUnavailableError, HttpClient, control_plane_errors
from data_plane.store.ports import Clock, Reply, StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import hold_leases_script
from tidegate.contract.questions import NodeAnswer, Question, Questions
from tidegate.contract.usage import MAX_BATCHES, MAX_SHIPMENT_BYTES, Shipment, ShipmentAnswer

log = structlog.get_logger()

STREAM = "tg:usage"
FLUSHED = "tg:usage:flushed"
LEASE = "tg:usage:shipper"
REFUSED = "tg:usage:refused"
MAX_REFUSED = 1_000
LEASE_MS = 5_000
ALIVE_FOR_US = 10_000_000
FORGET_AFTER_US = 3_600_000_000
SIZE_EVERY_US = 2_000_000
_FIELD = b"b"

SHIP_EVERY_S = 0.3
"""Together with the nodes' flushes, counts reach the control plane within a second; an emptied store loses no more."""
LEASE_EVERY_US = 1_000_000
POLL_EVERY_S = 0.02
REPORT_COMPLETE_EVERY_S = 3.0
WAIT_S = REPORT_COMPLETE_EVERY_S / 2
MAX_BACKOFF_S = 15.0

PATH = "/internal/v1/usage"
TIMEOUT_S = 15.0
_decoder = msgspec.json.Decoder(ShipmentAnswer)
_questions_decoder = msgspec.json.Decoder(Questions)


class StreamEntry(NamedTuple):
    """A packed batch in the stream, by the stream's own id."""

    id: bytes
    packed: bytes


class RedisUsageStream:
    """The region's stream of batches. ``max_bytes`` bounds its memory in the store.

    Every method that asks the store raises ``StoreUnavailableError``.
    """

    def __init__(self, store: RedisCounterStore, max_bytes: int, clock: Clock) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock
        self._sized_at_us = 0
        self.bytes = 0
        """The stream's size at the last check."""

    @property
    def fill(self) -> float:
        """How full it was at the last check; 1 is its bound."""
        return self.bytes / self._max_bytes

    async def add(self, packed: bytes) -> bool:
        """Append a batch. Returns ``False``, with nothing written, if the stream has reached its bound.

        There is no MAXLEN, which would drop unshipped batches.
        """
        now_us = self._clock.now_us()
        if not 0 <= now_us - self._sized_at_us < SIZE_EVERY_US:
            self._sized_at_us = now_us
            self.bytes = await self._size()
        if self.bytes >= self._max_bytes:
            return False
        await self._store.execute("XADD", STREAM, "*", _FIELD, packed)
        return True

    async def note_flushed(self, node: str, until_us: int) -> None:
        """Note that all counts of ``node`` before ``until_us`` are in the stream."""
        await self._store.execute("HSET", FLUSHED, node, until_us)

    async def flushed_until_us(self, now_us: int) -> int | None:
        """Until when every node alive at ``now_us`` has flushed; ``None`` without such nodes."""
        flushed = _pairs(await self._store.execute("HGETALL", FLUSHED))
        flushed_us = {_text(node): int(until_us) for node, until_us in flushed}
        gone = [node for node, until_us in flushed_us.items() if until_us < now_us - FORGET_AFTER_US]
        if gone:
            await self._store.execute("HDEL", FLUSHED, *gone)
        alive = (until_us for until_us in flushed_us.values() if until_us >= now_us - ALIVE_FOR_US)
        return min(alive, default=None)

    async def hold_lease(self, node: str) -> bool:
        """Take or renew the region's lease on shipping. Returns whether ``node`` holds it.

        Two agents may hold it for a moment while one's lease expires; they then send the same batches twice.
        """
        return bool(await self._hold_leases(node, 1))

    async def release_lease(self, node: str) -> None:
        """Release the lease, if ``node`` holds it."""
        await self._hold_leases(node, 0)

    async def has_some(self, within_s: float) -> bool:
        """Whether a batch waits; waits up to ``within_s`` for one."""
        wait_ms = round(within_s * 1_000)
        return bool(await self._store.execute("XREAD", "COUNT", 1, "BLOCK", wait_ms, "STREAMS", STREAM, "0"))

    async def oldest(self, count: int) -> Sequence[StreamEntry]:
        """The oldest batches."""
        reply = await self._store.execute("XRANGE", STREAM, "-", "+", "COUNT", count)
        return [StreamEntry(id, dict(_pairs(fields)).get(_FIELD, b"")) for id, fields in reply]

    async def delete(self, ids: Sequence[bytes]) -> None:
        """Delete batches that the control plane has."""
        if ids:
            await self._store.execute("XDEL", STREAM, *ids)

    async def set_aside(self, packed: bytes, reason: str) -> None:
        """Keep a batch that the control plane refused, for an operator to inspect."""
        await self._store.execute("XADD", REFUSED, "MAXLEN", "~", MAX_REFUSED, "*", _FIELD, packed, "reason", reason)

    async def _hold_leases(self, node: str, most: int) -> Reply:
        return await self._store.call_script(hold_leases_script(), [LEASE.encode()], [node, LEASE_MS, most])

    async def _size(self) -> int:
        try:
            # one word, so that redis-py finds the key behind it on a Cluster
            return int(await self._store.execute("MEMORY USAGE", STREAM, "SAMPLES", 20) or 0)
        except StoreUnavailableError as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            # the login may not use MEMORY: assume the usual largest batch
            return int(await self._store.execute("XLEN", STREAM)) * 4_096


def _pairs(reply: Reply) -> Sequence[tuple[bytes, bytes]]:
    """Pairs of a flat list or a mapping; redis-py returns either."""
    if isinstance(reply, dict):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=True))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class UsageShipper:
    """Sends the region's stream to the control plane while this agent holds the lease.

    ``random`` gives floats in [0, 1) for jitter.
    """

    def __init__(
        self, node: str, stream: RedisUsageStream, sink: "HttpUsageSink", clock: Clock, random: Callable[[], float]
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
        """Ship what comes, a few times a second, for ever."""
        backoff_s = SHIP_EVERY_S
        reason: str | None = None
        while True:
            try:
                # An agent that cannot reach the control plane lets its lease expire, so that another one tries.
                if not 0 <= self._clock.now_us() - self._leased_us < LEASE_EVERY_US:
                    self._leased_us = self._clock.now_us()
                    self.has_lease = await self._stream.hold_lease(self._node)
                if self.has_lease and (await self._stream.has_some(WAIT_S) or self._is_report_due()):
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
        now_us, is_report_due = self._clock.now_us(), self._is_report_due()
        # read before the stream, which then contains all that was flushed until then
        until_us = await self._stream.flushed_until_us(now_us)
        until_ms = None if until_us is None else until_us // 1_000
        while True:
            entries = await self._stream.oldest(MAX_BATCHES)
            self.lag_s = _waited_s(entries[0].id, now_us) if entries else 0.0
            part = _fitting(entries)
            at_end = len(part) == len(entries) < MAX_BATCHES
            if not part and not is_report_due:
                return
            answer = await self._sink.ship([entry.packed for entry in part], until_ms if at_end else None)
            for refused in answer.refused:
                self.refused_batches += 1
                log.error("usage_batch_refused", reason=refused.reason)
                if 0 <= refused.position < len(part):
                    await self._stream.set_aside(part[refused.position].packed, refused.reason)
            await self._stream.delete([entry.id for entry in part])
            self.shipped_batches += len(part)
            if at_end:
                self._reported_complete_us = now_us
                return
            await self._stream.hold_lease(self._node)

    def _is_report_due(self) -> bool:
        return not 0 <= self._clock.now_us() - self._reported_complete_us < REPORT_COMPLETE_EVERY_S * 1e6


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


class HttpUsageSink:
    """The way to the control plane, over one pooled client. Every method raises ``ControlPlaneUnavailableError``."""

    def __init__(self, url: str, credential: str, node: str, region: str, tls: ssl.SSLContext | None = None) -> None:
        self._node = node
        self._region = region
        timeout = aiohttp.ClientTimeout(2 * TIMEOUT_S, connect=2.0, sock_read=TIMEOUT_S)
        self._client = HttpClient(timeout, tls, url, credential)

    async def ship(self, batches: Sequence[bytes], complete_until_ms: int | None) -> ShipmentAnswer:
        """Deliver batches, which are committed when this returns. It is one try; the shipper retries."""
        shipment = Shipment(
            region=self._region, node=self._node, batches=tuple(batches), complete_until_ms=complete_until_ms
        )
        body, headers = msgspec.msgpack.encode(shipment), {"content-type": "application/octet-stream"}
        with control_plane_errors():
            return _decoder.decode(await self._client.ask("POST", PATH, data=body, headers=headers))

    async def questions(self, wait_s: float) -> Sequence[Question]:
        """The open questions; waits up to ``wait_s`` for one."""
        timeout = aiohttp.ClientTimeout(connect=TIMEOUT_S, sock_read=wait_s + TIMEOUT_S)
        with control_plane_errors():
            found = await self._client.ask("GET", "/internal/v1/questions", params={"wait": wait_s}, timeout=timeout)
            return _questions_decoder.decode(found).questions

    async def answer(self, answer: NodeAnswer) -> None:
        """Send one answer."""
        with control_plane_errors():
            await self._client.ask("POST", "/internal/v1/answers", json=answer)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
