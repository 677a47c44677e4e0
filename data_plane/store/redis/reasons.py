"""Why the store did not decide: a closed set, so that it can label a metric, and how error replies map to it."""

import re
from typing import Literal, NamedTuple

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
