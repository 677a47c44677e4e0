"""The scripts that count in Redis and Valkey. Each file in ``lua`` opens with its contract.

A script is several files joined, because Lua in Redis has no modules.
"""

from functools import cache

from tidegate.bundled import directory

RULES = ("prelude", "marks", "windows", "log", "buckets")
STRICT = ("strict_parameters", "rights", "borrowed_capacity", "transfers")


@cache
def decide_script() -> str:
    """The script that decides a batch of checks; its contract is in ``decide.lua``.

    Each family is a function that makes the others, so that a call pays for those that it needs: Redis runs a script
    from its first line at every call, and making all functions costs as much as deciding three limits.
    """
    windows = _made_by("windows", "", "fixed_window, sliding_window, weight_wait, rolled", _script("windows"))
    log = _made_by("log", "weight_wait, rolled", "sliding_log", _script("log"))
    buckets = _made_by("buckets", "", "token_bucket, leaky_bucket", _script("buckets"))
    rights = _made_by("rights", "", "strict", _script(*STRICT))
    unreachable = _made_by("unreachable", "", "decide_unreachable", _script("log", "unreachable"))
    parts = (_script("windows"), rights, unreachable, _script("extended"))
    extended = _made_by("extended", "", "decide_extended", "\n".join(parts))
    return "\n".join((_script("prelude", "marks"), windows, log, buckets, extended, _script("decide")))


@cache
def collect_script() -> str:
    """The script that collects this region's due counts; its contract is in ``collect.lua``."""
    return _script(*RULES, "collect")


@cache
def settle_script() -> str:
    """The script that removes marks once peers have acknowledged them; its contract is in ``settle.lua``."""
    return _script("prelude", "settle")


@cache
def make_due_script() -> str:
    """The script that makes marks due; its contract is in ``make_due.lua``."""
    return _script("prelude", "make_due")


@cache
def merge_script() -> str:
    """The script that merges a peer's counts; its contract is in ``merge.lua``."""
    return _script(*RULES, "unreachable", "peer_counts", "merge")


@cache
def end_epoch_script() -> str:
    """The script that ends an epoch of the store; its contract is in ``end_epoch.lua``."""
    return _script(*RULES, "peer_counts", "end_epoch")


@cache
def hold_slices_script() -> str:
    """The script that divides slices over agents; its contract is in ``hold_slices.lua``."""
    return _script("hold_slices")


@cache
def received_script() -> str:
    """The script that records when counts of peers were received; its contract is in ``received.lua``."""
    return _script("prelude", "received")


@cache
def mark_script() -> str:
    """The script that marks counters as due; its contract is in ``mark.lua``."""
    return _script("prelude", "marks", "mark")


@cache
def unlist_slots_script() -> str:
    """The script that removes slots without marks from the list; its contract is in ``unlist_slots.lua``."""
    return _script("unlist_slots")


@cache
def epoch_marker_script() -> str:
    """The script by which a process joins a store; its contract is in ``epoch_marker.lua``."""
    return _script("prelude", "epoch_marker")


@cache
def raise_epoch_marker_script() -> str:
    """The script that raises the epoch marker; its contract is in ``raise_epoch_marker.lua``."""
    return _script("prelude", "raise_epoch_marker")


@cache
def charge_script() -> str:
    """The script that consumes units without a check; its contract is in ``charge.lua``."""
    return _script(*RULES, *STRICT, "charge")


@cache
def give_back_script() -> str:
    """The script that returns consumed units; its contract is in ``give_back.lua``."""
    return _script(*RULES, *STRICT, "give_back")


def _made_by(family: str, needs: str, makes: str, body: str) -> str:
    return f"local function {family}({needs})\n{body}\nreturn {makes}\nend"


@cache
def load_publish_script() -> str:
    """The script that publishes load factors; its contract is in ``load_publish.lua``."""
    return _script("load_publish")


@cache
def denials_script() -> str:
    """The script that stores denials; its contract is in ``denials.lua``."""
    return _script("denials")


def _script(*parts: str) -> str:
    folder = directory("lua")
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
