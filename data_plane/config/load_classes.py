"""Which clients a factor admits: the highest class first, and within the last class the same clients for an hour.

All figures are integers: factors are millionths (``FULL`` admits all), hashes have 32 bits. Nodes with the same
factors decide alike.
"""

from collections.abc import Mapping
from zlib import crc32

FULL = 1_000_000
ALL = 1 << 32
"""One more than any 32-bit hash."""
HOUR_US = 3_600_000_000

_MIX = 0x9E3779B1  # 2^32 divided by the golden ratio, odd (Knuth, TAOCP 3, 6.4): consecutive values spread evenly
_MASK = ALL - 1


def share_out(allowed: int, demand: Mapping[int, int], floor: int) -> dict[int, int]:
    """Factors by priority with which ``allowed`` units of all demand are admitted.

    ``demand`` is by class, in the unit of ``allowed``; no factor is below ``floor``. A class is cut only when all
    classes below it are at the floor.
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
    """What a factor is a share of: the demand, or the backend's capacity if that is known and less."""
    return demand if capacity is None else min(demand, capacity)


def hour_seed(now_us: int) -> int:
    """The seed of an hour's cohorts, the same on every node."""
    return now_us // HOUR_US * 0x85EBCA6B & _MASK


def cohort_of(client: bytes, seed: int) -> int:
    """A client's place under a seed, from 0 to 2^32 - 1; clients below the threshold are admitted."""
    return ((crc32(client) ^ seed) * _MIX) & _MASK


def threshold_of(factor: int) -> int:
    """The place below which a factor admits clients."""
    return factor * ALL // FULL


def charge_of(cost: int, factor: int) -> tuple[int, int]:
    """The price of ``cost`` units: whole units, and the part of 2^32 of requests that pay one unit more.

    The average is exactly cost / factor; ``spread`` tells which requests pay more.
    """
    whole, rest = divmod(cost * FULL, factor)
    return whole, rest * ALL // factor


def spread(number: int) -> int:
    """The place of the ``number``-th request in 2^32: even over any run of numbers and any regular part of a run, so
    that no client that sends every second request always pays more.
    """
    return number * _MIX & _MASK
