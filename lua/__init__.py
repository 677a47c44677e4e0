"""The scripts that count in Redis and Valkey, one file an algorithm family; each opens with its contract.

A script is files put together: Lua in Redis has no modules, and what scripts share should be written once.
"""

from functools import cache
from importlib.resources import files

RULES = ("prelude", "windows", "log", "buckets")


@cache
def decide_script() -> str:
    """The script that decides a batch of checks; its contract is in ``decide.lua``."""
    return _script(*RULES, "decide")


@cache
def collect_script() -> str:
    """The script that reads this region's own counts of dirty keys; its contract is in ``collect.lua``."""
    return _script(*RULES, "cells", "collect")


@cache
def settle_script() -> str:
    """The script that takes keys off the dirty set once peers know them; its contract is in ``settle.lua``."""
    return _script(*RULES, "cells", "settle")


@cache
def merge_script() -> str:
    """The script that merges a peer's counts; its contract is in ``merge.lua``."""
    return _script(*RULES, "merge")


@cache
def mark_script() -> str:
    """The script that marks counters as changed, for a sweep; its contract is in ``mark.lua``."""
    return _script(*RULES, "mark")


@cache
def charge_script() -> str:
    """The script that consumes what was admitted without the store; its contract is in ``charge.lua``."""
    return _script(*RULES, "charge")


@cache
def give_back_script() -> str:
    """The script that returns what was consumed; its contract is in ``give_back.lua``."""
    return _script(*RULES, "give_back")


def _script(*parts: str) -> str:
    folder = files(__name__)
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
