"""The cells of shared limits in the region's store, by the scripts of ``lua/``."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from redis.exceptions import RedisError

from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.domain.counts_wire import decode_collected, decode_merged, encode_merge, encode_settle, merge_keys
from data_plane.services.ports import StoreUnavailableError
from data_plane.services.reconcile import MarkedKey, PeerCounter
from lua import collect_script, mark_script, merge_script, settle_script

T = TypeVar("T")

LEASE = "tg:lease:counts"
LEASE_MS = 600
INCARNATION = "tg:incarnation"
KEYS_A_SCRIPT = 200
"""A script holds the store for as long as it runs: short ones let decisions in between."""
SWEEP_PAGE = 500
MAX_MARKED = 2_000


class RedisCountStore:
    """Port ``CountStore``. Scripts get keys of one slot at a time, so it works on a Cluster as well."""

    def __init__(self, store: RedisCounterStore, node: str) -> None:
        self._store = store
        self._owner = f"{node}-{secrets.token_hex(4)}".encode()

    async def hold_lease(self) -> bool:
        """Take or keep the lease. Two holders for a moment do no harm: what they tell is absolute.

        On a Cluster a node knows the dirty sets that it marked itself, so there every node tells its own.
        """
        if self._store.settings.shape == "cluster":
            return True
        with _store_errors():
            if await self._store.execute("SET", LEASE, self._owner, "NX", "PX", LEASE_MS):
                return True
            if await self._store.execute("GET", LEASE) != self._owner:
                return False
            await self._store.execute("PEXPIRE", LEASE, LEASE_MS)
            return True

    async def incarnation(self) -> str:
        """The name that the store has kept since it was empty."""
        with _store_errors():
            known = await self._store.execute("GET", INCARNATION)
            if known is None:
                await self._store.execute("SET", INCARNATION, secrets.token_hex(8), "NX")
                known = await self._store.execute("GET", INCARNATION)
            return (known or b"").decode()

    async def marked(self) -> Sequence[MarkedKey]:
        """Some of the changed counters, at random, so that none waits for ever."""
        found: list[MarkedKey] = []
        with _store_errors():
            for dirty in self._store.dirty_keys():
                members = await self._store.execute("SRANDMEMBER", dirty, MAX_MARKED)
                for _, keys in self._beside_dirty_sets(members, lambda key: key):
                    reply = await self._store.call_script(collect_script(), [dirty, *keys], [])
                    cells = decode_collected(keys, reply)
                    found += [MarkedKey(key, own) for key, own in zip(keys, cells, strict=True) if own]
        return found

    async def settle(self, keys: Sequence[MarkedKey]) -> None:
        """Unmark what has not changed since it was read."""
        with _store_errors():
            for dirty, part in self._beside_dirty_sets(keys, lambda one: one.key):
                argument = encode_settle([one.cells for one in part])
                await self._store.call_script(settle_script(), [dirty, *(one.key for one in part)], [argument])

    async def mark_page(self, cursor: int, is_shared: Callable[[bytes], bool]) -> int:
        """Mark a page of all counters as changed; the next cursor, 0 at the end."""
        with _store_errors():
            following, keys = await self._store.execute("SCAN", cursor, "MATCH", "{*", "COUNT", SWEEP_PAGE)
            shared = [key for key in keys if is_shared(key) and not key.endswith(b"!")]
            for dirty, part in self._beside_dirty_sets(shared, lambda key: key):
                await self._store.call_script(mark_script(), [dirty, *part], [])
            return int(following)

    async def merge(self, peer: str, regions: int, counters: Sequence[PeerCounter]) -> Sequence[bytes]:
        """Take what a peer counted; the keys that it must send again."""
        again: list[bytes] = []
        with _store_errors():
            for _, part in self._beside_dirty_sets(counters, lambda counter: counter.key):
                keys = [counter.key for counter in part]
                cells = [encode_merge(counter.params, counter.cells) for counter in part]
                reply = await self._store.call_script(merge_script(), merge_keys(keys), [peer, regions, *cells])
                outcomes = zip(keys, decode_merged(reply), strict=True)
                again += [key for key, outcome in outcomes if outcome == "ahead"]
        return again

    def _beside_dirty_sets(self, items: Sequence[T], key_of: Callable[[T], bytes]) -> Iterator[tuple[bytes, list[T]]]:
        """Items by the dirty set in the slot of their keys, in parts short enough for one script."""
        groups: dict[bytes, list[T]] = {}
        for item in items:
            groups.setdefault(self._store.dirty_key_beside(key_of(item)), []).append(item)
        for dirty, group in groups.items():
            for start in range(0, len(group), KEYS_A_SCRIPT):
                yield dirty, group[start : start + KEYS_A_SCRIPT]


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(type(error).__name__) from error
