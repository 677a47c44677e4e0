"""Where the marks of counters with news lie: on one server in a sorted set a slice, on a Cluster in one for each slot.

A Cluster has thousands of slots, and few of them have marks at a time. Which, every node notes in a list that all of
them read, so that the holder of a slice finds what another node marked.
"""

from collections.abc import Sequence
from typing import Protocol

from redis.crc import key_slot

from contract.counts import SLICES
from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.adapters.redis.topology import DIRTY_KEY
from lua import unlist_script


class MarkSets(Protocol):
    """The sorted sets with marks. Methods that ask the store raise redis-py's errors."""

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        ...

    def set_of(self, dirty: bytes, slice: int) -> bytes:
        """The sorted set of a slice, by the dirty key beside its counters."""
        ...

    async def note(self) -> None:
        """Let other nodes know what this one may have marked since the last time."""
        ...

    async def read(self, slices: Sequence[int], most: int) -> Sequence[Sequence[Sequence[object]]]:
        """For each slice, members and scores (see ``ZRANGE``) of its sets, at most that many of each, lowest first."""
        ...


def mark_sets(store: RedisCounterStore) -> MarkSets:
    """Those of this store."""
    return SlotMarks(store) if store.settings.shape == "cluster" else SliceMarks(store)


class SliceMarks:
    """One server: eight sets, by the sum of a key's bytes (``lua/marks.lua``)."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        return sum(key) % SLICES

    def set_of(self, dirty: bytes, slice: int) -> bytes:
        """The one set of a slice."""
        return dirty + b"%d" % slice

    async def note(self) -> None:
        """Everybody knows where marks are."""

    async def read(self, slices: Sequence[int], most: int) -> Sequence[Sequence[Sequence[object]]]:
        """The members of the one set of each."""
        sets = [self.set_of(DIRTY_KEY, slice) for slice in slices]
        found = await self._store.execute_all([("ZRANGE", name, 0, most - 1, "WITHSCORES") for name in sets])
        return [[members] for members in found]


class SlotMarks:
    """A Cluster: a set for each slot; a slice is every eighth slot."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store
        self._lately: set[int] = set()

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        return key_slot(key) % SLICES

    def set_of(self, dirty: bytes, slice: int) -> bytes:  # noqa: ARG002  a slot is in one slice as a whole
        """The set of the slot."""
        return dirty

    async def note(self) -> None:
        """List the slots with marks of ours: twice, because a script may run later than it was sent."""
        touched = self._store.take_touched()
        noted, self._lately = touched | self._lately, touched
        await self._store.execute_all(
            [("HINCRBY", _list_of(slot % SLICES), self._store.dirty_key_of_slot(slot), 1) for slot in sorted(noted)]
        )

    async def read(self, slices: Sequence[int], most: int) -> Sequence[Sequence[Sequence[object]]]:
        """The members of every listed set; those that are empty leave the list."""
        return [await self._read(slice, most) for slice in slices]

    async def _read(self, slice: int, most: int) -> Sequence[Sequence[object]]:
        listed = await self._store.execute("HGETALL", _list_of(slice))
        sets = list(listed)
        found = await self._store.execute_all([("ZRANGE", name, 0, most - 1, "WITHSCORES") for name in sets])
        empty = [figure for name, members in zip(sets, found, strict=True) if not members
                 for figure in (name, listed[name])]  # fmt: skip
        if empty:
            await self._store.call_script(unlist_script(), [_list_of(slice)], empty)
        return found


def _list_of(slice: int) -> bytes:
    """The hash that lists a slice's sets, each with how often it was noted."""
    return b"tg:marked:%d" % slice
