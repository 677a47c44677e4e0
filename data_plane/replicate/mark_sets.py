"""Where marks of changed counters are stored: one sorted set a slice on one server, one a slot on a Cluster.

A Cluster has thousands of slots, and few have marks at a time. Every node notes these in a shared list, where the
holder of a slice finds what other nodes marked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from redis.crc import key_slot

from data_plane.store.ports import RegionStore
from data_plane.store.scripts import unlist_slots_script
from tidegate.contract.counts import SLICES

T = TypeVar("T")


class MarkSet(NamedTuple):
    """A sorted set of marks and its slice. One script may name sets with the same ``call``."""

    key: bytes
    slice: int
    call: int


class MarkSets(Protocol):
    """The sorted sets with marks. Methods that ask the store raise redis-py's errors."""

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        ...

    async def note(self) -> None:
        """List the sets in which this process may have marked since the last call."""
        ...

    async def sets(self, slices: Sequence[int]) -> Sequence[MarkSet]:
        """The sets of these slices that may hold marks."""
        ...

    async def drop_empty(self, sets: Sequence[MarkSet]) -> None:
        """Take sets that were found without marks off the list."""
        ...


def mark_sets(store: RegionStore) -> MarkSets:
    """The mark sets of this store."""
    return SlotMarks(store) if store.settings.shape == "cluster" else SliceMarks(store.dirty_key_of_slot(0))


class SliceMarks:
    """One server: eight sets, by the sum of a key's bytes (``lua/marks.lua``)."""

    def __init__(self, dirty_key: bytes) -> None:
        self._dirty_key = dirty_key

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        return sum(key) % SLICES

    async def note(self) -> None:
        """Nothing to list: the sets are fixed."""

    async def sets(self, slices: Sequence[int]) -> Sequence[MarkSet]:
        """The one set of each."""
        return [MarkSet(self._dirty_key + b"%d" % slice, slice, 0) for slice in slices]

    async def drop_empty(self, sets: Sequence[MarkSet]) -> None:
        """Nothing to do: the sets are fixed."""


class SlotMarks:
    """A Cluster: a set for each slot; a slice is every eighth slot."""

    def __init__(self, store: RegionStore) -> None:
        self._store = store
        self._last_touched: set[int] = set()
        self._listed: dict[int, Mapping[bytes, bytes]] = {}

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        return key_slot(key) % SLICES

    async def note(self) -> None:
        """List the slots that this process touched, twice each, as a script may run later than it was sent."""
        touched = self._store.take_touched()
        noted, self._last_touched = touched | self._last_touched, touched
        await self._store.execute_all(
            [("HINCRBY", _list_of(slot % SLICES), self._store.dirty_key_of_slot(slot), 1) for slot in sorted(noted)]
        )

    async def sets(self, slices: Sequence[int]) -> Sequence[MarkSet]:
        """The listed sets."""
        found: list[MarkSet] = []
        for slice in slices:
            self._listed[slice] = await self._store.execute("HGETALL", _list_of(slice))
            found += [MarkSet(name, slice, key_slot(name)) for name in self._listed[slice]]
        return found

    async def drop_empty(self, sets: Sequence[MarkSet]) -> None:
        """Take sets off the list, unless a process marked there meanwhile."""
        for mark_set in sets:
            number = self._listed[mark_set.slice].get(mark_set.key, b"")
            await self._store.call_script(unlist_slots_script(), [_list_of(mark_set.slice)], [mark_set.key, number])


def _list_of(slice: int) -> bytes:
    """The hash that lists a slice's sets, each with how often it was noted."""
    return b"tg:marked:%d" % slice


def parts_by_slot(
    store: RegionStore, items: Sequence[T], key_of: Callable[[T], bytes], max_items: int
) -> Iterator[tuple[bytes, Sequence[T]]]:
    """Split items into parts that one script call may name: keys of one slot, with the dirty key in that slot."""
    groups: dict[bytes, list[T]] = {}
    for item in items:
        groups.setdefault(store.slot_key_beside(key_of(item)), []).append(item)
    for dirty, group in groups.items():
        for start in range(0, len(group), max_items):
            yield dirty, group[start : start + max_items]
