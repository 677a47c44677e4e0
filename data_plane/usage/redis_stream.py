"""The region's stream of usage: one Redis stream, its shipper's lease, and each node's last flush."""

from collections.abc import Sequence

from redis.exceptions import RedisError, ResponseError

from data_plane.store.ports import Argument, Clock, Reply, StoreUnavailableError
from data_plane.store.redis.client import store_errors
from data_plane.store.redis.store import RedisCounterStore
from data_plane.usage.flusher import StreamEntry

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


class RedisUsageStream:
    """Implements ``UsageStream``. ``max_bytes`` bounds the stream's memory in the store."""

    def __init__(self, store: RedisCounterStore, max_bytes: int, clock: Clock) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock
        self._sized_at_us = 0
        self.bytes = 0
        """The stream's size at the last check."""

    @property
    def fill(self) -> float:
        """Its size relative to ``max_bytes``."""
        return self.bytes / self._max_bytes

    async def add(self, packed: bytes) -> bool:
        """``XADD`` unless the stream is at its bound; without MAXLEN, which would drop unshipped batches."""
        now_us = self._clock.now_us()
        if now_us - self._sized_at_us >= SIZE_EVERY_US:
            self._sized_at_us = now_us
            self.bytes = await self._size()
        if self.bytes >= self._max_bytes:
            return False
        await self._execute("XADD", STREAM, "*", _FIELD, packed)
        return True

    async def note_flushed(self, node: str, until_us: int) -> None:
        """``HSET``."""
        await self._execute("HSET", FLUSHED, node, until_us)

    async def flushed_until_us(self, now_us: int) -> int | None:
        """The oldest last flush, among nodes that flushed within ``ALIVE_FOR_US``."""
        flushed_us = {_text(node): int(until_us) for node, until_us in _pairs(await self._execute("HGETALL", FLUSHED))}
        gone = [node for node, until_us in flushed_us.items() if until_us < now_us - FORGET_AFTER_US]
        if gone:
            await self._execute("HDEL", FLUSHED, *gone)
        alive = (until_us for until_us in flushed_us.values() if until_us >= now_us - ALIVE_FOR_US)
        return min(alive, default=None)

    async def hold_lease(self, node: str) -> bool:
        """``SET NX PX``, or ``PEXPIRE`` of a lease that ``node`` holds.

        Two agents may hold it for a moment while one's lease expires; they then send the same batches twice.
        """
        if await self._execute("SET", LEASE, node, "NX", "PX", LEASE_MS):
            return True
        if _text(await self._execute("GET", LEASE) or b"") != node:
            return False
        await self._execute("PEXPIRE", LEASE, LEASE_MS)
        return True

    async def release_lease(self, node: str) -> None:
        """``DEL`` of a lease that ``node`` holds."""
        if _text(await self._execute("GET", LEASE) or b"") == node:
            await self._execute("DEL", LEASE)

    async def oldest(self, count: int) -> Sequence[StreamEntry]:
        """``XRANGE`` from the beginning."""
        reply = await self._execute("XRANGE", STREAM, "-", "+", "COUNT", count)
        return [StreamEntry(id, dict(_pairs(fields)).get(_FIELD, b"")) for id, fields in reply]

    async def settle(self, ids: Sequence[bytes]) -> None:
        """``XDEL``."""
        if ids:
            await self._execute("XDEL", STREAM, *ids)

    async def set_aside(self, packed: bytes, reason: str) -> None:
        """``XADD`` to a bounded stream of refused batches."""
        await self._execute("XADD", REFUSED, "MAXLEN", "~", MAX_REFUSED, "*", _FIELD, packed, "reason", reason)

    async def _size(self) -> int:
        try:
            # one word, so that redis-py finds the key behind it on a Cluster
            return int(await self._store.execute("MEMORY USAGE", STREAM, "SAMPLES", 20) or 0)
        except ResponseError:  # the login may not use MEMORY: assume the usual largest batch
            return int(await self._execute("XLEN", STREAM)) * 4_096
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error

    async def _execute(self, *args: Argument) -> Reply:
        with store_errors():
            return await self._store.execute(*args)


def _pairs(reply: Reply) -> Sequence[tuple[bytes, bytes]]:
    """Pairs of a flat list or a mapping; redis-py returns either."""
    if isinstance(reply, dict):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=True))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
