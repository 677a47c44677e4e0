"""How whole units are split: so that the parts always sum to the whole."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from contract.limits import ShareStep
from contract.quotas import split


def equal_shares(units: int, regions: Sequence[str]) -> dict[str, int]:
    """The same for each region, but for single units."""
    return split(units, dict.fromkeys(regions, Fraction(1))) if regions else {}


def explicit_shares(units: int, fractions: Mapping[str, float], regions: Sequence[str]) -> dict[str, int]:
    """By the given fractions; a region without one gets nothing."""
    # through the decimal text, so that 0.1 means a tenth
    weights = {region: Fraction(repr(fractions.get(region, 0.0))) for region in regions}
    return split(units, weights) if sum(weights.values()) else {}


def units_of(step: ShareStep, whole: int) -> dict[str, int]:
    """What each region has of ``whole`` units by a step of parts, as nodes count it: of a cut, rounded down."""
    if sum(step.shares.values()) != step.limit:
        return {region: whole * part // step.limit for region, part in step.shares.items()}
    return split(whole, step.shares)
