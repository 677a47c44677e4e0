"""Reports, demand and factors of a region in its store; all of it in one slot, and none of it worth a backup."""

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence

from redis.exceptions import RedisError

from data_plane.load.ports import Pinned
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import load_publish_script

LEASE = "tg:{load}:lease"
FACTORS = "tg:{load}:factors"
DEMAND = "tg:{load}:demand"
SAID = "tg:{load}:said:"
LEASE_MS = 3_000
KEPT_MS = 3_600_000


class RedisFactorStore:
    """Port ``FactorStore`` on the region's store."""

    def __init__(self, store: RedisCounterStore, node: str) -> None:
        self._store = store
        self._owner = f"{node}-{secrets.token_hex(4)}".encode()

    async def pin(self, reports: Sequence[Pinned]) -> None:
        """Keep reports, each in place of the one before by the same name."""
        by_backend: dict[str, list[str | bytes]] = {}
        for one in reports:
            by_backend.setdefault(one.backend, []).extend((one.name, one.body))
        with _store_errors():
            for backend, pairs in by_backend.items():
                await self._store.execute("HSET", SAID + backend, *pairs)
                await self._store.execute("PEXPIRE", SAID + backend, KEPT_MS)

    async def pinned(self, backend: str) -> Mapping[str, bytes]:
        """The reports on a backend, by name."""
        return await self._hash(SAID + backend)

    async def unpin(self, backend: str, names: Sequence[str]) -> None:
        """Drop reports."""
        if names:
            with _store_errors():
                await self._store.execute("HDEL", SAID + backend, *names)

    async def tell_demand(self, node: str, body: bytes) -> None:
        """What this node was asked for."""
        with _store_errors():
            await self._store.execute("HSET", DEMAND, node, body)

    async def demands(self) -> Mapping[str, bytes]:
        """What each node was asked for."""
        return await self._hash(DEMAND)

    async def drop_demands(self, nodes: Sequence[str]) -> None:
        """Forget nodes that are gone."""
        if nodes:
            with _store_errors():
                await self._store.execute("HDEL", DEMAND, *nodes)

    async def hold_lease(self) -> bool:
        """Take or keep the right to decide."""
        with _store_errors():
            if await self._store.execute("SET", LEASE, self._owner, "NX", "PX", LEASE_MS):
                return True
            if await self._store.execute("GET", LEASE) != self._owner:
                return False
            await self._store.execute("PEXPIRE", LEASE, LEASE_MS)
            return True

    async def release_lease(self) -> None:
        """Give the right to decide up. Between the two commands it may run out: then another one takes it again."""
        with _store_errors():
            if await self._store.execute("GET", LEASE) == self._owner:
                await self._store.execute("DEL", LEASE)

    async def publish(self, body: bytes) -> bool:
        """Share the factors, unless somebody else decides by now."""
        keys = [LEASE.encode(), FACTORS.encode()]
        with _store_errors():
            return bool(await self._store.call_script(load_publish_script(), keys, [self._owner, body, KEPT_MS]))

    async def read(self) -> bytes | None:
        """The factors as last shared."""
        with _store_errors():
            body: bytes | None = await self._store.execute("GET", FACTORS)
            return body

    async def _hash(self, key: str) -> Mapping[str, bytes]:
        with _store_errors():
            found = await self._store.execute("HGETALL", key)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {name.decode("utf-8", "replace"): body for name, body in pairs}


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(type(error).__name__) from error
