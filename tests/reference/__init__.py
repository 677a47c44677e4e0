"""The rules of every algorithm in exact integers: oracle of the Lua scripts and limiter of last resort.

States are immutable and ``None`` means untouched; time is an argument, in microseconds since the epoch.
"""

from tests.reference.decide import State, decide, evaluate
from tests.reference.verdict import Stored, Verdict

__all__ = ["State", "Stored", "Verdict", "decide", "evaluate"]
