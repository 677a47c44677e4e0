"""The state of the store as ``/v1/status`` and the metrics show it, and why it did not decide.

Reasons are a closed set, so that they can label a metric; error replies map to them.
"""

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from data_plane.store.redis.server import ServerFacts
from data_plane.store.redis.settings import Shape

State = Literal["closed", "open", "half_open"]
"""A circuit's."""
Reason = Literal[
    "timeout",
    "overloaded",
    "circuit_open",
    "connection_lost",
    "read_only",
    "loading",
    "out_of_memory",
    "busy",
    "no_permission",
    "master_down",
    "cluster_down",
    "slot_migrating",
    "redirected",
    "script_error",
    "misconfigured",
    "closed",
]
REASONS: tuple[Reason, ...] = Reason.__args__  # type: ignore[attr-defined]  # typing's own way to list a Literal


@dataclass(slots=True)
class StoreStats:
    """Counters since start. ``errors`` has every reason from the beginning, so that a metric never appears late."""

    decisions: int = 0
    """Decisions that a script call answered."""
    batches: int = 0
    """Script calls sent; one that is sent again counts again."""
    largest_batch: int = 0
    late_replies: int = 0
    """Replies to calls of which at least one decision had been given up."""
    script_loads: int = 0
    connects: int = 0
    connect_failures: int = 0
    circuits_opened_before: int = 0
    """Times that circuits of servers opened which have left the Cluster since."""
    redirects: int = 0
    given_back: int = 0
    give_back_failures: int = 0
    callback_errors: int = 0
    errors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    """Decisions that the store did not decide, by reason."""


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One server: whether it is connected, its circuit, and what it said of itself when the connection was made."""

    address: str
    connected: bool
    circuit: State
    circuit_opened: int
    problem: Reason | None
    """Why the last attempt to connect failed, or else what the circuit noted; ``None`` without either."""
    server: ServerFacts


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The whole store; ``usable`` means that every shard decides at this moment."""

    shape: Shape
    usable: bool
    shards: tuple[ShardStatus, ...]


class Fault(NamedTuple):
    """What an error reply means. ``reconnect``: another server, or another login, may be in charge by now."""

    reason: Reason
    reconnect: bool = False


FAULTS: dict[str, Fault] = {
    "READONLY": Fault("read_only", reconnect=True),
    "LOADING": Fault("loading"),
    "OOM": Fault("out_of_memory"),
    "MASTERDOWN": Fault("master_down", reconnect=True),
    "CLUSTERDOWN": Fault("cluster_down"),
    "BUSY": Fault("busy"),
    "NOPERM": Fault("no_permission"),
    "NOAUTH": Fault("no_permission", reconnect=True),
    "WRONGPASS": Fault("no_permission", reconnect=True),
    "NOREPLICAS": Fault("master_down"),
    "MISCONF": Fault("read_only"),
    "UNBLOCKED": Fault("read_only", reconnect=True),
}
SCRIPT_ERROR = Fault("script_error")

# Redis 6.2 wraps what a command inside a script answered: "ERR Error running script (...): @user_script:1: -OOM ..."
_WRAPPED_CODE = re.compile(r"-([A-Z]+)\b")


def error_code(message: str) -> str:
    """The first word of an error reply: ``MOVED``, ``NOSCRIPT``, ``ERR``."""
    return message.partition(" ")[0]


def classify(message: str) -> Fault:
    """What an error reply to a script call means; what is unknown is the script's own error."""
    fault = FAULTS.get(error_code(message))
    if fault is not None:
        return fault
    for wrapped in _WRAPPED_CODE.findall(message):
        if wrapped in FAULTS:
            return FAULTS[wrapped]
    return SCRIPT_ERROR
