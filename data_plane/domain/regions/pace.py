"""How fast a counter is used, kept in its own state: units in this second and in the one before."""

from typing import NamedTuple


class Pace(NamedTuple):
    """``second`` is in whole seconds since the epoch."""

    second: int = 0
    units: int = 0
    units_before: int = 0


STILL = Pace()


def quicken(pace: Pace, cost: int, now_us: int) -> Pace:
    """``cost`` more units now."""
    second = now_us // 1_000_000
    if second <= pace.second:
        return pace._replace(units=pace.units + cost)
    return Pace(second, cost, pace.units if second == pace.second + 1 else 0)


def per_second(pace: Pace, now_us: int) -> int:
    """Units a second, by the busier of the two."""
    second = now_us // 1_000_000
    if second <= pace.second:
        return max(pace.units, pace.units_before)
    return pace.units if second == pace.second + 1 else 0
