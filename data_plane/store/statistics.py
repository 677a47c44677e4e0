"""Store statistics: how full and how busy the region's store is, for the metrics; apart from decisions."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore

ASK_EVERY_S = 5.0


class StoreSize(NamedTuple):
    """All servers that hold counters together. Sizes are bytes; ``max_bytes`` 0 means no bound."""

    keys: int
    used_bytes: int
    max_bytes: int
    commands: int
    """Commands of all clients since the servers started."""
    evicted: int
    """Keys that the servers evicted for want of memory; anything but 0 is lost counts."""


class StoreStatistics:
    """Asks the region's store; ``size`` is ``None`` while there is no answer, or when the last question failed."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store
        self.size: StoreSize | None = None

    async def run(self) -> None:
        """Ask, for ever."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_EVERY_S)

    async def ask(self) -> None:
        """Ask once: the sum over every server that holds counters."""
        try:
            sizes = [_size(facts) for facts in await self._store.info()]
        except StoreUnavailableError:
            self.size = None
        else:
            self.size = StoreSize(*(sum(column) for column in zip(*sizes, strict=True)))


def _size(facts: Mapping[str, Any]) -> StoreSize:
    databases = (value for name, value in facts.items() if name.startswith("db") and isinstance(value, Mapping))
    return StoreSize(
        keys=sum(int(database["keys"]) for database in databases),
        used_bytes=int(facts.get("used_memory", 0)),
        max_bytes=int(facts.get("maxmemory", 0)),
        commands=int(facts.get("total_commands_processed", 0)),
        evicted=int(facts.get("evicted_keys", 0)),
    )
