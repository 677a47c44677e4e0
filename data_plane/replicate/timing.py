"""The times that all regions agree on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in microseconds, the same in every region."""

    tick_us: int = 200_000
    lazy_us: int = 1_000_000
    """News that does not matter much is told within this time."""
    stale_after_us: int = 2_000_000
    heartbeat_us: int = 500_000
    sweep_us: int = 300_000_000
    """At least this often all counts are told again: no promise rests on it."""


DEFAULT_TIMING = Timing()
