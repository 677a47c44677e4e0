"""The state of the store as ``/v1/status`` and the metrics show it."""

from dataclasses import dataclass

from data_plane.store.redis.circuit import State
from data_plane.store.redis.reasons import Reason
from data_plane.store.redis.server import ServerFacts
from data_plane.store.redis.settings import Shape


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One server: whether it is connected, its circuit, and what it said of itself when the connection was made."""

    address: str
    connected: bool
    circuit: State
    circuit_opened: int
    problem: Reason | None
    """Why the last attempt to connect failed; ``None`` once one succeeded."""
    server: ServerFacts


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The whole store; ``usable`` means that every shard decides at this moment."""

    shape: Shape
    usable: bool
    shards: tuple[ShardStatus, ...]
