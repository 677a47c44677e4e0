"""The size of the store, from ``INFO`` of each of its servers."""

from collections.abc import Mapping
from typing import Any

from redis.exceptions import RedisError

from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.statistics import StoreSize


class RedisSurvey:
    """Port ``StoreSurvey`` on the region's store."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store

    async def size(self) -> StoreSize:
        """The sum over every server that holds counters."""
        try:
            sizes = [_size(facts) for facts in await self._store.info()]
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
        return StoreSize(*(sum(column) for column in zip(*sizes, strict=True)))


def _size(facts: Mapping[str, Any]) -> StoreSize:
    databases = (value for name, value in facts.items() if name.startswith("db") and isinstance(value, Mapping))
    return StoreSize(
        keys=sum(int(database["keys"]) for database in databases),
        used_bytes=int(facts.get("used_memory", 0)),
        max_bytes=int(facts.get("maxmemory", 0)),
        commands=int(facts.get("total_commands_processed", 0)),
        evicted=int(facts.get("evicted_keys", 0)),
    )
