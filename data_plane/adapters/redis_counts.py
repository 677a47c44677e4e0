"""The cells of shared limits in the region's store, by the scripts of ``lua/``."""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from redis.exceptions import RedisError

from contract.counts import SLICES, Cell
from data_plane.adapters.redis.client import Argument
from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.domain.counts_wire import (
    PEERS_SUFFIX,
    decode_collected,
    decode_merged,
    decode_peers,
    encode_merge,
    encode_settle,
    merge_keys,
)
from data_plane.domain.regions.rules import DEFAULT_TIMING
from data_plane.services.count_store import Heard, MarkedKey, Marks, Merging, PeerCounter, SweptPage
from data_plane.services.ports import StoreUnavailableError
from lua import collect_script, heard_script, mark_script, merge_script, settle_script, slices_script

T = TypeVar("T")

LEASES = [b"{tg:lease}:%d" % number for number in range(SLICES)]
LEASE_MS = 3 * DEFAULT_TIMING.tick_us // 1_000
INCARNATION = "tg:incarnation"
HEARD = b"tg:heard"
KEYS_A_SCRIPT = 200
"""A script holds the store for as long as it runs: short ones let decisions in between."""
SWEEP_PAGE = 1_000
MAX_MARKED = 2_000
"""Of one slice, in one tick: what waits longest."""


class RedisCountStore:
    """Port ``CountStore``. Scripts get keys of one slot at a time, so it works on a Cluster as well."""

    def __init__(self, store: RedisCounterStore, node: str) -> None:
        self._store = store
        self._owner = f"{node}-{secrets.token_hex(4)}".encode()

    async def hold_slices(self, most: int) -> Sequence[int]:
        """Take and keep leases. Two holders for a moment do no harm: what they tell is absolute.

        On a Cluster a node knows the slices of the slots that it wrote to, so there every node tells its own.
        """
        if self._store.settings.shape == "cluster":
            return range(SLICES)
        with _store_errors():
            held = await self._store.call_script(slices_script(), LEASES, [self._owner, LEASE_MS, most])
        return [int(number) for number in held]

    async def incarnation(self) -> str:
        """The name that the store has kept since it was empty."""
        with _store_errors():
            known = await self._store.execute("GET", INCARNATION)
            if known is None:
                await self._store.execute("SET", INCARNATION, secrets.token_hex(8), "NX")
                known = await self._store.execute("GET", INCARNATION)
            return (known or b"").decode()

    async def marked(self, slice: int) -> Marks:
        """The counters of a slice that have waited longest."""
        found: list[MarkedKey] = []
        rest_us = 0
        with _store_errors():
            for dirty in self._store.dirty_keys():
                name = _slice_key(dirty, slice)
                flat = await self._store.execute("ZRANGE", name, 0, MAX_MARKED - 1, "WITHSCORES")
                since_us = dict(_pairs(flat))
                if len(since_us) >= MAX_MARKED:
                    newest_us = max(since_us.values())
                    rest_us = min(rest_us, newest_us) if rest_us else newest_us
                for _, keys in self._parts(list(since_us), lambda key: key):
                    reply = await self._store.call_script(collect_script(), [name, *keys], [])
                    collected = decode_collected(keys, reply)
                    found += [MarkedKey(key, since_us[key], own) for key, own in zip(keys, collected, strict=True)]
        return Marks([one for one in found if one.own.cells], rest_us)

    async def settle(self, slice: int, keys: Sequence[MarkedKey]) -> None:
        """Unmark what has not changed since it was read."""
        with _store_errors():
            for dirty, part in self._parts(keys, lambda one: one.key):
                argument = encode_settle([one.own.cells for one in part])
                name = _slice_key(dirty, slice)
                await self._store.call_script(settle_script(), [name, *(one.key for one in part)], [argument])

    async def sweep(
        self, cursor: int, slices: Sequence[int], is_shared: Callable[[bytes], bool], *, lives: bool
    ) -> SweptPage:
        """Mark a page of our counters as changed, and read what peers had counted in them."""
        said: dict[str, list[Cell]] = {}

        def is_ours(key: bytes) -> bool:
            return sum(key) % SLICES in slices and is_shared(key)

        with _store_errors():
            following, keys = await self._store.execute("SCAN", cursor, "MATCH", "{*", "COUNT", SWEEP_PAGE)
            ours = [key for key in keys if key[-1:] not in {b"!", b"?"} and is_ours(key)]
            for dirty, part in self._parts(ours, lambda key: key):
                await self._store.call_script(mark_script(), [dirty, *part], [])
            of_peers = [key for key in keys if lives and key.endswith(PEERS_SUFFIX) and is_ours(key[:-1])]
            for _, part in self._parts(of_peers, lambda key: key):
                for key, raw in zip(part, await self._store.execute("MGET", *part), strict=True):
                    for life, cells in decode_peers(raw or b"").items():
                        said.setdefault(life, []).extend(Cell(key[:-1], *figures) for figures in cells)
            return SweptPage(int(following), said)

    async def merge(self, life: str, regions: int, counters: Sequence[PeerCounter]) -> Merging:
        """Take what a life counted."""
        again: list[bytes] = []
        over, most_over = 0, 0
        with _store_errors():
            for _, part in self._parts(counters, lambda counter: counter.key):
                keys = [counter.key for counter in part]
                cells = [encode_merge(counter.params, counter.cells) for counter in part]
                reply = await self._store.call_script(merge_script(), merge_keys(keys), [life, regions, *cells])
                met = decode_merged(reply)
                again += [key for key, outcome in zip(keys, met.outcomes, strict=True) if outcome == "ahead"]
                over, most_over = over + met.over, max(most_over, met.most_over)
        return Merging(again, over, most_over)

    async def told_life(self, peer: str) -> str | None:
        """The life of a peer's store that was told everything."""
        with _store_errors():
            known = await self._store.execute("HGET", HEARD, f"={peer}")
        return known.decode() if known else None

    async def note_told(self, peer: str, incarnation: str | None) -> None:
        """That life of the peer's store was told everything, or nobody knows."""
        with _store_errors():
            if incarnation is None:
                await self._store.execute("HDEL", HEARD, f"={peer}")
            else:
                await self._store.execute("HSET", HEARD, f"={peer}", incarnation)

    async def hear(self, peer: str, ages_us: Mapping[int, int], peers: Sequence[str]) -> Mapping[str, Heard]:
        """Note what was heard, and read who is silent."""
        ages = [figure for pair in ages_us.items() for figure in pair]
        arguments: list[Argument] = [SLICES, DEFAULT_TIMING.stale_after_us, peer, len(ages_us), *ages, *peers]
        with _store_errors():
            flat = await self._store.call_script(heard_script(), [HEARD], arguments)
        triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return {name.decode(): Heard(int(as_of_us), int(since_us)) for name, as_of_us, since_us in triples}

    def _parts(self, items: Sequence[T], key_of: Callable[[T], bytes]) -> Iterator[tuple[bytes, list[T]]]:
        """Items by what stands for the dirty set in the slot of their keys, in parts short enough for one script."""
        groups: dict[bytes, list[T]] = {}
        for item in items:
            groups.setdefault(self._store.dirty_key_beside(key_of(item)), []).append(item)
        for dirty, group in groups.items():
            for start in range(0, len(group), KEYS_A_SCRIPT):
                yield dirty, group[start : start + KEYS_A_SCRIPT]


def _slice_key(dirty: bytes, slice: int) -> bytes:
    return dirty + b"%d" % slice


def _pairs(flat: Sequence[object]) -> Iterator[tuple[bytes, int]]:
    """Members and scores, in either form that redis-py may have them."""
    pairs: Iterable[Any] = flat
    if flat and isinstance(flat[0], bytes):
        pairs = zip(flat[::2], flat[1::2], strict=True)
    for member, score in pairs:
        yield member, int(float(score))


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(type(error).__name__) from error
