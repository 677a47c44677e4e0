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


def _script(*parts: str) -> str:
    folder = files(__name__)
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
