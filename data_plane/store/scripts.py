"""The scripts that count in Redis and Valkey. Each file in ``lua`` opens with its contract.

A script is several files joined, because Lua in Redis has no modules. Where a file has several scripts, each is a
function with its contract, and the joined text ends with the call of one.
"""

from functools import cache

from tidegate.bundled import directory

RULES = ("marks", "windows", "log", "buckets")
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
    """``collect`` of ``send.lua``: this region's due counts. It makes families as ``decide_script`` does."""
    windows = _made_by("windows", "", "stored_window", _script("windows"))
    log = _made_by("log", "", "stored_log", _script("log"))
    buckets = _made_by("buckets", "", "bucket_state", _script("buckets"))
    return "\n".join((_script("prelude", "marks"), windows, log, buckets, _script("send", runs="collect")))


@cache
def unmark_script() -> str:
    """``unmark`` of ``send.lua``: removes marks once peers have acknowledged them."""
    return _script("prelude", "send", runs="unmark")


@cache
def make_due_script() -> str:
    """``make_due`` of ``send.lua``: makes marks due."""
    return _script("prelude", "send", runs="make_due")


@cache
def mark_script() -> str:
    """``mark_again`` of ``send.lua``: marks counters as due."""
    return _script("prelude", "marks", "send", runs="mark_again")


@cache
def hold_leases_script() -> str:
    """``hold_leases`` of ``send.lua``: divides leases over agents: those of slices, or one that is alone."""
    return _script("prelude", "send", runs="hold_leases")


@cache
def unlist_slots_script() -> str:
    """``unlist_slots`` of ``send.lua``: removes slots without marks from the list."""
    return _script("prelude", "send", runs="unlist_slots")


@cache
def merge_script() -> str:
    """``merge`` of ``receive.lua``: merges a peer's counts."""
    return _enclosed(*RULES, "unreachable", "receive", runs="merge")


@cache
def end_epoch_script() -> str:
    """``end_epoch`` of ``receive.lua``: ends an epoch of the store."""
    return _enclosed(*RULES, "receive", runs="end_epoch")


@cache
def received_script() -> str:
    """``note_received`` of ``receive.lua``: records when counts of peers were received."""
    return _script("prelude", "receive", runs="note_received")


@cache
def epoch_marker_script() -> str:
    """``join_store`` of ``epoch_marker.lua``: by which a process joins a store."""
    return _script("prelude", "epoch_marker", runs="join_store")


@cache
def raise_epoch_marker_script() -> str:
    """``raise_epoch_marker`` of ``epoch_marker.lua``: raises the epoch marker."""
    return _script("prelude", "epoch_marker", runs="raise_epoch_marker")


@cache
def charge_script() -> str:
    """The script that consumes units without a check; its contract is in ``charge.lua``."""
    return _enclosed(*RULES, *STRICT, "charge")


@cache
def give_back_script() -> str:
    """The script that returns consumed units; its contract is in ``give_back.lua``."""
    return _enclosed(*RULES, *STRICT, "give_back")


def _enclosed(*parts: str, runs: str | None = None) -> str:
    """A script whose functions stand in one function: Lua makes them in half the time.

    For each local that a function captures, Lua searches a list of the captured locals of the function around it. The
    prelude's are outside, and not in that list.
    """
    return f"{_script('prelude')}\nlocal function whole()\n{_script(*parts, runs=runs)}\nend\nreturn whole()"


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


def _script(*parts: str, runs: str | None = None) -> str:
    folder = directory("lua")
    files = [(folder / f"{part}.lua").read_text("utf-8") for part in parts]
    return "\n".join(files if runs is None else [*files, f"return {runs}()"])
