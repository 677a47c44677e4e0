"""An immutable map that is cheap to change: one of 256 small dicts is copied, not 100,000 entries."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_MASK = 255


class ShardedMap(Generic[K, V]):
    """Looks up like a dict; ``with_changes`` answers a new map and leaves this one as it is."""

    __slots__ = ("_shards",)

    def __init__(self, shards: "list[dict[K, V]] | None" = None) -> None:
        self._shards = shards if shards is not None else [{} for _ in range(_MASK + 1)]

    def get(self, key: K) -> V | None:
        """The value at ``key``, or ``None``."""
        return self._shards[hash(key) & _MASK].get(key)

    def with_changes(self, put: Mapping[K, V], gone: Iterable[K]) -> "ShardedMap[K, V]":
        """A new map with ``put`` added or replaced and ``gone`` removed."""
        touched: dict[int, dict[K, V]] = {}

        def shard(key: K) -> dict[K, V]:
            number = hash(key) & _MASK
            if number not in touched:
                touched[number] = dict(self._shards[number])
            return touched[number]

        for key in gone:
            shard(key).pop(key, None)
        for key, value in put.items():
            shard(key)[key] = value
        return ShardedMap([touched.get(number, kept) for number, kept in enumerate(self._shards)])

    def __len__(self) -> int:
        return sum(map(len, self._shards))
