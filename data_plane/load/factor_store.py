"""Reports, demand and factors in the region's store, all in one slot; losing them is harmless."""

import secrets
from collections.abc import Mapping, Sequence

from data_plane.load.ports import NamedReport
from data_plane.store.redis.client import store_errors
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import load_publish_script

LEASE = "tg:{load}:lease"
FACTORS = "tg:{load}:factors"
DEMAND = "tg:{load}:demand"
REPORTS = "tg:{load}:said:"
LEASE_MS = 3_000
KEPT_MS = 3_600_000


class RedisFactorStore:
    """Implements ``FactorStore``."""

    def __init__(self, store: RedisCounterStore, node: str) -> None:
        self._store = store
        self._owner = f"{node}-{secrets.token_hex(4)}".encode()

    async def store_reports(self, reports: Sequence[NamedReport]) -> None:
        """Store reports; each replaces the one before of the same name."""
        by_backend: dict[str, list[str | bytes]] = {}
        for report in reports:
            by_backend.setdefault(report.backend, []).extend((report.name, report.body))
        with store_errors():
            for backend, pairs in by_backend.items():
                await self._store.execute("HSET", REPORTS + backend, *pairs)
                await self._store.execute("PEXPIRE", REPORTS + backend, KEPT_MS)

    async def reports_on(self, backend: str) -> Mapping[str, bytes]:
        """The reports on a backend, by name."""
        return await self._hash(REPORTS + backend)

    async def drop_reports(self, backend: str, names: Sequence[str]) -> None:
        """Drop reports."""
        if names:
            with store_errors():
                await self._store.execute("HDEL", REPORTS + backend, *names)

    async def write_demand(self, node: str, body: bytes) -> None:
        """Write a node's demand."""
        with store_errors():
            await self._store.execute("HSET", DEMAND, node, body)

    async def demands(self) -> Mapping[str, bytes]:
        """The demand of each node."""
        return await self._hash(DEMAND)

    async def drop_demands(self, nodes: Sequence[str]) -> None:
        """Drop the demand of nodes that are gone."""
        if nodes:
            with store_errors():
                await self._store.execute("HDEL", DEMAND, *nodes)

    async def hold_lease(self) -> bool:
        """Take or renew the lease. Returns whether this agent holds it."""
        with store_errors():
            if await self._store.execute("SET", LEASE, self._owner, "NX", "PX", LEASE_MS):
                return True
            if await self._store.execute("GET", LEASE) != self._owner:
                return False
            await self._store.execute("PEXPIRE", LEASE, LEASE_MS)
            return True

    async def release_lease(self) -> None:
        """Release the lease, if this agent holds it. A holder that loses it by a race takes it again."""
        with store_errors():
            if await self._store.execute("GET", LEASE) == self._owner:
                await self._store.execute("DEL", LEASE)

    async def publish(self, body: bytes) -> bool:
        """Publish factors. Returns whether this agent still holds the lease; else nothing is done."""
        keys = [LEASE.encode(), FACTORS.encode()]
        with store_errors():
            return bool(await self._store.call_script(load_publish_script(), keys, [self._owner, body, KEPT_MS]))

    async def read(self) -> bytes | None:
        """The factors published last."""
        with store_errors():
            body: bytes | None = await self._store.execute("GET", FACTORS)
            return body

    async def _hash(self, key: str) -> Mapping[str, bytes]:
        with store_errors():
            found = await self._store.execute("HGETALL", key)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {name.decode("utf-8", "replace"): body for name, body in pairs}
