"""The scripts that count in Redis and Valkey. Each file in ``lua`` opens with its contract.

A script is files put together: Lua in Redis has no modules, and what scripts share should be written once.
"""

from functools import cache

from tidegate.bundled import directory

RULES = ("prelude", "marks", "windows", "log", "buckets")
STRICT = ("terms", "rights", "loans", "transfers")


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
    silences = _made_by("silences", "", "silent", _script("log", "silent"))
    parts = (_script("windows"), rights, silences, _script("beyond"))
    beyond = _made_by("beyond", "", "decide_beyond", "\n".join(parts))
    return "\n".join((_script("prelude", "marks"), windows, log, buckets, beyond, _script("decide")))


@cache
def collect_script() -> str:
    """The script that collects this region's own counts that are due to be sent; its contract is in ``collect.lua``."""
    return _script(*RULES, "collect")


@cache
def settle_script() -> str:
    """The script that forgets marks once peers know their counters; its contract is in ``settle.lua``."""
    return _script("prelude", "settle")


@cache
def recall_script() -> str:
    """The script that makes marks due; its contract is in ``recall.lua``."""
    return _script("prelude", "recall")


@cache
def merge_script() -> str:
    """The script that merges a peer's counts; its contract is in ``merge.lua``."""
    return _script(*RULES, "silent", "peers", "merge")


@cache
def retire_script() -> str:
    """The script that ends a store epoch; its contract is in ``retire.lua``."""
    return _script(*RULES, "peers", "retire")


@cache
def slices_script() -> str:
    """The script that divides sending over the region's agents; its contract is in ``slices.lua``."""
    return _script("slices")


@cache
def heard_script() -> str:
    """The script that notes when a peer's messages arrived; its contract is in ``heard.lua``."""
    return _script("prelude", "heard")


@cache
def mark_script() -> str:
    """The script that marks counters as due; its contract is in ``mark.lua``."""
    return _script("prelude", "marks", "mark")


@cache
def unlist_script() -> str:
    """The script that forgets slots without marks; its contract is in ``unlist.lua``."""
    return _script("unlist")


@cache
def marker_script() -> str:
    """The script with which a node joins a store; its contract is in ``marker.lua``."""
    return _script("prelude", "marker")


@cache
def raise_script() -> str:
    """The script that raises what the marker says; its contract is in ``raise.lua``."""
    return _script("prelude", "raise")


@cache
def charge_script() -> str:
    """The script that consumes what was admitted without the store; its contract is in ``charge.lua``."""
    return _script(*RULES, *STRICT, "charge")


@cache
def give_back_script() -> str:
    """The script that returns what was consumed; its contract is in ``give_back.lua``."""
    return _script(*RULES, *STRICT, "give_back")


def _made_by(family: str, needs: str, makes: str, body: str) -> str:
    return f"local function {family}({needs})\n{body}\nreturn {makes}\nend"


@cache
def load_publish_script() -> str:
    """The script that shares load factors; its contract is in ``load_publish.lua``."""
    return _script("load_publish")


@cache
def denials_script() -> str:
    """The script that keeps denials; its contract is in ``denials.lua``."""
    return _script("denials")


def _script(*parts: str) -> str:
    folder = directory("lua")
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
