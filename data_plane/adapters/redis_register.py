"""The nodes of a region, in a sorted set by the time they were last seen."""

from redis.exceptions import RedisError

from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.services.ports import StoreUnavailableError

KEY = "tg:nodes"
FORGET_AFTER_US = 3_600 * 1_000_000


class RedisNodeRegister:
    """Port ``NodeRegister`` on the region's store."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store

    async def announce(self, node: str, now_us: int, since_us: int) -> int:
        """Note that ``node`` is alive; answer how many were seen since ``since_us``."""
        try:
            await self._store.execute("ZADD", KEY, now_us, node)
            await self._store.execute("ZREMRANGEBYSCORE", KEY, "-inf", now_us - FORGET_AFTER_US)
            return int(await self._store.execute("ZCOUNT", KEY, since_us, "+inf"))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
