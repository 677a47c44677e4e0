"""The state of the store as ``/v1/status`` and the metrics show it."""

from dataclasses import dataclass, field

from data_plane.store.redis.circuit import State
from data_plane.store.redis.reasons import REASONS, Reason
from data_plane.store.redis.server import ServerFacts
from data_plane.store.redis.settings import Shape


@dataclass(slots=True)
class StoreStats:
    """Counters since start. ``errors`` has every reason from the beginning, so that a metric never appears late."""

    decisions: int = 0
    """Decisions that a script call answered."""
    batches: int = 0
    """Script calls sent, again ones included."""
    largest_batch: int = 0
    late_replies: int = 0
    """Replies to calls of which at least one decision had been given up."""
    script_loads: int = 0
    connects: int = 0
    connect_failures: int = 0
    redirects: int = 0
    tries_again: int = 0
    splits: int = 0
    given_back: int = 0
    give_back_failures: int = 0
    callback_errors: int = 0
    errors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    """Decisions that the store did not decide, by reason."""

    @property
    def timeouts(self) -> int:
        """Decisions given up at their deadline."""
        return self.errors["timeout"]


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
