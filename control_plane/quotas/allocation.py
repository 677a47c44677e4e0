"""How whole units are split: by largest remainder, so that the parts always sum to the whole."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from contract.limits import ShareStep


def largest_remainder(units: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Split ``units`` in proportion to ``weights``; what is left after rounding down goes to the largest remainders,
    in a tie to the name that comes first. (Hamilton's method.)
    """
    total = sum(weights.values(), Fraction(0))
    if not weights or total <= 0:
        raise ValueError("nothing to split by: the weights must sum to more than 0")
    exact = {name: units * weight / total for name, weight in weights.items()}
    whole = {name: int(part) for name, part in exact.items()}
    left = units - sum(whole.values())
    for name in sorted(weights, key=lambda name: (whole[name] - exact[name], name))[:left]:
        whole[name] += 1
    return dict(sorted(whole.items()))


def equal_shares(units: int, regions: Sequence[str]) -> dict[str, int]:
    """The same for each region, but for single units."""
    return largest_remainder(units, dict.fromkeys(regions, Fraction(1))) if regions else {}


def explicit_shares(units: int, fractions: Mapping[str, float], regions: Sequence[str]) -> dict[str, int]:
    """By the given fractions; a region without one gets nothing."""
    # through the decimal text, so that 0.1 means a tenth
    weights = {region: Fraction(repr(fractions.get(region, 0.0))) for region in regions}
    return largest_remainder(units, weights) if sum(weights.values()) else {}


def units_of(step: ShareStep, whole: int) -> dict[str, int]:
    """What each region has of ``whole`` units by a step of parts, as nodes count it: of a cut, rounded down."""
    if sum(step.shares.values()) != step.limit:
        return {region: whole * part // step.limit for region, part in step.shares.items()}
    return largest_remainder(whole, {region: Fraction(part) for region, part in step.shares.items()})
