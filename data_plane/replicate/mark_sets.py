"""Where the marks of counters with news lie: on one server in a sorted set a slice, on a Cluster in one for each slot.

A Cluster has thousands of slots, and few of them have marks at a time. Which, every node notes in a list that all of
them read, so that the holder of a slice finds what another node marked.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from redis.crc import key_slot

from data_plane.store.ports import RegionStore
from data_plane.store.scripts import unlist_slots_script
from tidegate.contract.counts import SLICES


class MarkSet(NamedTuple):
    """One sorted set of marks, the slice that it is of; ``call``: equal where one script may name both."""

    key: bytes
    slice: int
    call: int


class MarkSets(Protocol):
    """The sorted sets with marks. Methods that ask the store raise redis-py's errors."""

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        ...

    async def note(self) -> None:
        """Let others know what this process may have marked since the last time."""
        ...

    async def sets(self, slices: Sequence[int]) -> Sequence[MarkSet]:
        """Those of these slices that may hold marks."""
        ...

    async def are_empty(self, sets: Sequence[MarkSet]) -> None:
        """These, of the last ``sets``, were found without marks."""
        ...


def mark_sets(store: RegionStore) -> MarkSets:
    """Those of this store."""
    return SlotMarks(store) if store.settings.shape == "cluster" else SliceMarks(store.dirty_key_of_slot(0))


class SliceMarks:
    """One server: eight sets, by the sum of a key's bytes (``lua/marks.lua``)."""

    def __init__(self, dirty_key: bytes) -> None:
        self._dirty_key = dirty_key

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        return sum(key) % SLICES

    async def note(self) -> None:
        """Everybody knows where marks are."""

    async def sets(self, slices: Sequence[int]) -> Sequence[MarkSet]:
        """The one set of each."""
        return [MarkSet(self._dirty_key + b"%d" % slice, slice, 0) for slice in slices]

    async def are_empty(self, sets: Sequence[MarkSet]) -> None:
        """They are looked at all the same."""


class SlotMarks:
    """A Cluster: a set for each slot; a slice is every eighth slot."""

    def __init__(self, store: RegionStore) -> None:
        self._store = store
        self._lately: set[int] = set()
        self._listed: dict[int, Mapping[bytes, bytes]] = {}

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        return key_slot(key) % SLICES

    async def note(self) -> None:
        """List the slots with marks of ours: twice, because a script may run later than it was sent."""
        touched = self._store.take_touched()
        noted, self._lately = touched | self._lately, touched
        await self._store.execute_all(
            [("HINCRBY", _list_of(slot % SLICES), self._store.dirty_key_of_slot(slot), 1) for slot in sorted(noted)]
        )

    async def sets(self, slices: Sequence[int]) -> Sequence[MarkSet]:
        """The listed ones."""
        found: list[MarkSet] = []
        for slice in slices:
            self._listed[slice] = await self._store.execute("HGETALL", _list_of(slice))
            found += [MarkSet(name, slice, key_slot(name)) for name in self._listed[slice]]
        return found

    async def are_empty(self, sets: Sequence[MarkSet]) -> None:
        """They leave the list, unless somebody marked there meanwhile."""
        for one in sets:
            number = self._listed[one.slice].get(one.key, b"")
            await self._store.call_script(unlist_slots_script(), [_list_of(one.slice)], [one.key, number])


def _list_of(slice: int) -> bytes:
    """The hash that lists a slice's sets, each with how often it was noted."""
    return b"tg:marked:%d" % slice
