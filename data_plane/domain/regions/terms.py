"""What a node hands to every step on a counter: the limit, this region's part in it, and what it knows of the world."""

from typing import NamedTuple

from contract.limits import Algorithm
from data_plane.domain.regions.frame import Frame, id_at
from data_plane.domain.regions.quotas import Schedule, quota_at
from data_plane.domain.regions.rules import ALL_RULES, Rules

NO_ID = -(2**60)


class Terms(NamedTuple):
    """Parameters of a counter's steps; all that a script would get in ARGV.

    ``rate``, ``unit`` and ``size`` are a bucket's: quanta a microsecond, quanta a unit, units (see
    ``domain.algorithms.buckets``); size 0: they are those of this region's own part, of which nothing is lent.
    ``quiet_id`` is the last id under which this incarnation owns nothing.
    ``horizon_us`` is how long rights should last before more are asked for.
    ``shares`` are every region's current shares, by which the others' parts are kept for them when they fall silent.
    """

    algorithm: Algorithm
    frame: Frame
    schedule: Schedule
    incarnation: int
    generation: int = 0
    quiet_id: int = NO_ID
    birth_us: int = 0
    skew_us: int = 1_000_000
    horizon_us: int = 0
    rate: int = 0
    unit: int = 1
    size: int = 0
    region: str = ""
    shares: tuple[tuple[str, int], ...] = ()
    rules: Rules = ALL_RULES


def share_at(terms: Terms, id: int) -> int:
    """E: what this region owns of its own under ``id``."""
    return 0 if id <= terms.quiet_id else quota_at(terms.schedule, id).share


def limit_at(terms: Terms, id: int) -> int:
    """L under ``id``, as this region knows it."""
    return quota_at(terms.schedule, id).limit


def quiet_id(frame: Frame, birth_us: int, skew_us: int, rules: Rules) -> int:
    """The last id that a store born at ``birth_us`` (0: the region's first) may have forgotten something of."""
    if birth_us == 0 or not rules.quiet_after_birth:
        return NO_ID
    return id_at(frame, birth_us + skew_us)
