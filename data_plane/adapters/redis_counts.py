"""The cells of shared limits in the region's store, by the scripts of ``lua/``."""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from redis.exceptions import RedisError

from contract.counts import SLICES, Cell
from data_plane.adapters.redis.client import Argument, Reply
from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.adapters.redis.topology import MARKER
from data_plane.adapters.redis_marks import mark_sets
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
from data_plane.domain.regions.wire import decode_marker
from data_plane.services.count_store import Heard, HeardPeers, MarkedKey, Marks, Merging, PeerCounter, SweptPage
from data_plane.services.ports import StoreUnavailableError
from lua import (
    collect_script,
    heard_script,
    mark_script,
    merge_script,
    retire_script,
    settle_script,
    slices_script,
)

log = structlog.get_logger()

T = TypeVar("T")
Call = tuple[Sequence[bytes], Sequence[Argument]]
"""A script's keys and arguments."""

LEASES = [b"{tg:lease}:%d" % number for number in range(SLICES)]
LEASE_MS = 3 * DEFAULT_TIMING.tick_us // 1_000
INCARNATION = b"tg:incarnation"
OF_MARKER = b"tg:incarnation:of"
"""The incarnation in the epoch marker that this life belongs to: with another one the store came back."""
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
        self._marks = mark_sets(store)
        self._owner = f"{node}-{secrets.token_hex(4)}".encode()

    async def hold_slices(self, most: int) -> Sequence[int]:
        """Take and keep leases. Two holders for a moment do no harm: what they tell is absolute."""
        with _store_errors():
            await self._marks.note()
            held = await self._store.call_script(slices_script(), LEASES, [self._owner, LEASE_MS, most])
        return [int(number) for number in held]

    async def begin_life(self, region: str, regions: int, is_told: Callable[[bytes], bool]) -> None:
        """Where the marker says that the store came back, hand its own counts over to the life that is over."""
        with _store_errors():
            name, of, marker = await self._life()
            if name is None or of == marker or marker is None:
                return
            if of is None:
                await self._store.execute("SET", OF_MARKER, marker, "NX")
                return
            log.warning("store_came_back", life=name.decode())
            heads: list[Argument] = [region, name, regions]
            names = [INCARNATION, OF_MARKER, HEARD]
            cursor = ""
            while True:
                cursor, keys = await self._store.scan(cursor, "{*", SWEEP_PAGE)
                ours = [key for key in keys if key[-1:] not in {b"!", b"?"} and is_told(key)]
                calls: list[Call] = [
                    ([*names, *merge_keys(part)], [*heads, "", ""]) for _, part in self._parts(ours, lambda key: key)
                ]
                await self._call_all(retire_script(), calls)
                if not cursor:
                    break
            await self._store.call_script(retire_script(), names, [*heads, secrets.token_hex(8), marker])

    async def incarnation(self) -> str:
        """The name that the store has kept since it was empty, or came back."""
        with _store_errors():
            name, of, marker = await self._life()
            if name is None:
                await self._store.execute("SET", INCARNATION, secrets.token_hex(8), "NX")
                name = await self._store.execute("GET", INCARNATION)
            elif of is not None and marker is not None and of != marker:
                raise StoreUnavailableError("NewLife")
            return (name or b"").decode()

    async def _life(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The life's name, the incarnation that it belongs to, and the marker's own; on a Cluster the name alone."""
        if self._store.settings.shape == "cluster":
            return await self._store.execute("GET", INCARNATION), None, None
        name, of, marker = await self._store.execute("MGET", INCARNATION, OF_MARKER, MARKER)
        return name, of, None if marker is None else b"%d" % decode_marker(marker).incarnation

    async def marked(self, slices: Sequence[int]) -> Mapping[int, Marks]:
        """The counters of each slice that have waited longest."""
        parts: list[tuple[list[MarkedKey], dict[bytes, int], list[bytes]]] = []
        calls: list[Call] = []
        marks: dict[int, Marks] = {}
        with _store_errors():
            for slice, sets in zip(slices, await self._marks.read(slices, MAX_MARKED), strict=True):
                members = [pair for flat in sets for pair in _pairs(flat)]
                since_us = dict(sorted(members, key=lambda pair: pair[1])[:MAX_MARKED])
                found: list[MarkedKey] = []
                marks[slice] = Marks(found, max(since_us.values()) if len(since_us) == MAX_MARKED else 0)
                for dirty, keys in self._parts(list(since_us), lambda key: key):
                    parts.append((found, since_us, keys))
                    calls.append(([self._marks.set_of(dirty, slice), *keys], []))
            replies = await self._call_all(collect_script(), calls)
        for (found, since_us, keys), reply in zip(parts, replies, strict=True):
            collected = zip(keys, decode_collected(keys, reply), strict=True)
            found += [MarkedKey(key, since_us[key], own) for key, own in collected if own.cells]
        return marks

    async def settle(self, keys: Mapping[int, Sequence[MarkedKey]]) -> None:
        """Unmark what has not changed since it was read, by slice."""
        with _store_errors():
            calls: list[Call] = [
                ([self._marks.set_of(dirty, slice), *(one.key for one in part)],
                 [encode_settle([one.own.cells for one in part])])
                for slice, of_slice in keys.items()
                for dirty, part in self._parts(of_slice, lambda one: one.key)
            ]  # fmt: skip
            await self._call_all(settle_script(), calls)

    async def sweep(
        self, cursor: str, slices: Sequence[int], is_told: Callable[[bytes], bool], *, lives: bool
    ) -> SweptPage:
        """Mark a page of our counters as changed, and read what peers had counted in them."""
        said: dict[str, list[Cell]] = {}

        def is_ours(key: bytes) -> bool:
            return self._marks.slice_of(key) in slices and is_told(key)

        with _store_errors():
            following, keys = await self._store.scan(cursor, "{*", SWEEP_PAGE)
            ours = [key for key in keys if key[-1:] not in {b"!", b"?"} and is_ours(key)]
            calls: list[Call] = [
                ([self._store.dirty_key_beside(part[0]), *part], []) for _, part in self._parts(ours, lambda key: key)
            ]
            await self._call_all(mark_script(), calls)
            of_peers = [key for key in keys if lives and key.endswith(PEERS_SUFFIX) and is_ours(key[:-1])]
            known = await self._store.execute_all([("GET", key) for key in of_peers])
            for key, raw in zip(of_peers, known, strict=True):
                for life, cells in decode_peers(raw or b"").items():
                    said.setdefault(life, []).extend(Cell(key[:-1], *figures) for figures in cells)
            return SweptPage(following, said)

    async def merge(self, life: str, regions: int, counters: Sequence[PeerCounter]) -> Merging:
        """Take what a life counted."""
        news: set[bytes] = set()
        again: list[bytes] = []
        over, most_over = 0, 0
        with _store_errors():
            parts = list(self._parts(counters, lambda counter: counter.key))
            calls: list[Call] = [
                ([dirty, *merge_keys([counter.key for counter in part])],
                 [life, regions, *(encode_merge(counter.params, counter.cells) for counter in part)])
                for dirty, part in parts
            ]  # fmt: skip
            for (_, part), reply in zip(parts, await self._call_all(merge_script(), calls), strict=True):
                met = decode_merged(reply)
                news.update(one.key for one, outcome in zip(part, met.outcomes, strict=True) if outcome != "known")
                again += [one.key for one, outcome in zip(part, met.outcomes, strict=True) if outcome == "ahead"]
                over, most_over = over + met.over, max(most_over, met.most_over)
        return Merging(news, again, over, most_over)

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

    async def hear(self, peer: str, sent_us: int, ages_us: Mapping[int, int], peers: Sequence[str]) -> HeardPeers:
        """Note what was heard, and read who is silent."""
        ages = [figure for pair in ages_us.items() for figure in pair]
        arguments: list[Argument] = [SLICES, DEFAULT_TIMING.stale_after_us, peer, sent_us, len(ages_us), *ages, *peers]
        with _store_errors():
            repeated, *flat = await self._store.call_script(heard_script(), [HEARD], arguments)
        triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        states = {name.decode(): Heard(int(as_of_us), int(since_us)) for name, as_of_us, since_us in triples}
        return HeardPeers(int(repeated), states)

    def _parts(self, items: Sequence[T], key_of: Callable[[T], bytes]) -> Iterator[tuple[bytes, list[T]]]:
        """Items by what stands for the dirty set in the slot of their keys, in parts short enough for one script."""
        groups: dict[bytes, list[T]] = {}
        for item in items:
            groups.setdefault(self._store.slot_key_beside(key_of(item)), []).append(item)
        for dirty, group in groups.items():
            for start in range(0, len(group), KEYS_A_SCRIPT):
                yield dirty, group[start : start + KEYS_A_SCRIPT]

    async def _call_all(self, source: str, calls: Sequence[Call]) -> list[Reply]:
        """Calls of one script, as many in a round trip as name the keys of one."""
        replies: list[Reply] = []
        turn: list[Call] = []
        for call in calls:
            if turn and sum(len(keys) for keys, _ in turn) + len(call[0]) > KEYS_A_SCRIPT:
                replies += await self._store.call_scripts(source, turn)
                turn = []
            turn.append(call)
        return replies + (await self._store.call_scripts(source, turn) if turn else [])


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
