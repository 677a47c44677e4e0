"""The nodes of a region and its agents, each in a sorted set by the time they were last seen."""

from redis.exceptions import RedisError

from data_plane.store.ports import RegionStore, StoreUnavailableError

NODES = "tg:nodes"
AGENTS = "tg:agents"
FORGET_AFTER_US = 3_600 * 1_000_000


class RedisNodeRegister:
    """Port ``NodeRegister`` on the region's store; ``key`` names the set."""

    def __init__(self, store: RegionStore, key: str = NODES) -> None:
        self._store = store
        self._key = key

    async def announce(self, node: str, now_us: int, since_us: int) -> int:
        """Note that ``node`` is alive; answer how many were seen since ``since_us``."""
        try:
            await self._store.execute("ZADD", self._key, now_us, node)
            await self._store.execute("ZREMRANGEBYSCORE", self._key, "-inf", now_us - FORGET_AFTER_US)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
        return await self.count(since_us)

    async def count(self, since_us: int) -> int:
        """How many were seen since ``since_us``."""
        try:
            return int(await self._store.execute("ZCOUNT", self._key, since_us, "+inf"))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error

    async def leave(self, node: str) -> None:
        """Note that ``node`` is about to end."""
        try:
            await self._store.execute("ZREM", self._key, node)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error

    async def memory(self) -> tuple[int, int]:
        """Bytes in use and the most the store may use; on a Cluster, of the node that answers."""
        try:
            facts = await self._store.execute("INFO", "memory")
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
        return memory_in(facts)


def memory_in(info: bytes | dict[str, object]) -> tuple[int, int]:
    """``used_memory`` and ``maxmemory`` of an ``INFO memory`` reply."""
    text = info.decode() if isinstance(info, bytes) else "\n".join(f"{name}:{value}" for name, value in info.items())
    facts = dict(line.strip().split(":", 1) for line in text.splitlines() if ":" in line)
    return int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
