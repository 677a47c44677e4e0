"""How ``auto`` shares follow demand: a floor for each region, part of the way at a time, not for trifles. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Balancing:
    """How eagerly shares follow. All are fractions of the whole."""

    floor: float = 0.05
    """What each region keeps whatever its demand; with many regions at most half of an equal share."""
    damping: float = 0.5
    """How much of the way to what demand asks for is gone in one run."""
    min_change: float = 0.05
    """No region's share moves unless some region's would by at least this much."""


class Balance(NamedTuple):
    """Shares as fractions that sum to 1, or ``None`` where they stay; and why."""

    shares: dict[str, float] | None
    reason: str


def balance(current: Mapping[str, float], demand: Mapping[str, float], rules: Balancing) -> Balance:
    """New shares for the regions of ``current`` (fractions that sum to 1) from ``demand`` (units, any period).

    A region of which nothing is known keeps its share: no report does not mean no demand. Where nobody asked for
    anything the shares stay.
    """
    if len(current) < 2:
        return Balance(None, "There is one region.")
    known = {region: float(demand[region]) for region in current if region in demand}
    asked = sum(known.values())
    if asked <= 0:
        return Balance(None, "No demand was seen.")
    floor = min(rules.floor, 0.5 / len(current))
    pool = sum(current[region] for region in known)
    to_give = max(0.0, pool - floor * len(known))
    wanted = {region: floor + to_give * units / asked for region, units in known.items()}
    damped = {region: share + rules.damping * (wanted.get(region, share) - share) for region, share in current.items()}
    moved = {region: damped[region] - share for region, share in current.items()}
    seen = ", ".join(f"{region} {units / asked:.0%}" for region, units in sorted(known.items()))
    unknown = sorted(set(current) - set(known))
    rest = f" Nothing is known of {', '.join(unknown)}." if unknown else ""
    if max(abs(change) for change in moved.values()) < rules.min_change:
        return Balance(None, f"Demand ({seen}) differs from the shares by less than {rules.min_change:.0%}.{rest}")
    total = sum(damped.values())
    shares = {region: round(share / total, 4) for region, share in damped.items()}
    largest = max(shares, key=lambda region: (shares[region], region))
    shares[largest] = round(shares[largest] + 1 - sum(shares.values()), 4)
    steps = ", ".join(f"{region} {current[region]:.0%} to {shares[region]:.0%}" for region in sorted(shares))
    return Balance(shares, f"Demand is {seen}: {steps}.{rest}")
