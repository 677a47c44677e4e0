"""Who is admitted under a factor: the highest class first, within the boundary class the same clients for an hour.

All figures are whole numbers: factors are millionths (``FULL`` admits all), hashes 32 bits. Nodes that know the same
factors decide alike.
"""

from collections.abc import Mapping
from zlib import crc32

FULL = 1_000_000
ALL = 1 << 32
"""One more than any 32-bit hash: everybody is below it."""
HOUR_US = 3_600_000_000

_MIX = 0x9E3779B1  # 2^32 divided by the golden ratio, odd (Knuth, TAOCP 3, 6.4): consecutive values spread evenly
_MASK = ALL - 1


def share_out(allowed: int, demand: Mapping[int, int], floor: int) -> dict[int, int]:
    """Factors by priority such that what is admitted sums to ``allowed``.

    ``demand`` is what each class asks for, in the unit of ``allowed``; ``floor`` is what no class's factor falls below.
    The highest class is served first: a class gives way only when all below it are at their floor.
    """
    if allowed >= sum(demand.values()):
        return dict.fromkeys(demand, FULL)
    factors: dict[int, int] = {}
    left = allowed - sum(floor * asked // FULL for asked in demand.values())
    for priority in sorted(demand, reverse=True):
        above_floor = (FULL - floor) * demand[priority] // FULL
        if left > 0 and left >= above_floor:
            factors[priority] = FULL
        else:
            factors[priority] = floor + max(0, left) * FULL // max(1, demand[priority])
        left -= above_floor
    return factors


def basis_of(demand: int, capacity: int | None) -> int:
    """What a factor is a share of: the backend's capacity where that is known and less than what is asked for."""
    return demand if capacity is None else min(demand, capacity)


def hour_seed(now_us: int) -> int:
    """What makes an hour's cohorts differ from the next one's; the same on every node."""
    return now_us // HOUR_US * 0x85EBCA6B & _MASK


def cohort_of(client: bytes, seed: int) -> int:
    """A client's place in this hour, from 0 to 2^32 - 1: those below the threshold are admitted."""
    return ((crc32(client) ^ seed) * _MIX) & _MASK


def threshold_of(factor: int) -> int:
    """The cohorts that a factor admits: those below this."""
    return factor * ALL // FULL


def charge_of(cost: int, factor: int) -> tuple[int, int]:
    """What ``cost`` units cost under a factor: whole units, and the part of 2^32 of requests that cost one more.

    On average that is exactly cost / factor; ``spread`` says which ones.
    """
    whole, rest = divmod(cost * FULL, factor)
    return whole, rest * ALL // factor


def spread(number: int) -> int:
    """The place of the ``number``-th request among 2^32, evenly spread for any run of numbers, and any regular part
    of them: no client that comes every second time is always the one who pays more.
    """
    return number * _MIX & _MASK
