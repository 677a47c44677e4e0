"""How a limit is split into regions' shares, in whole units: nodes and the control plane must do it alike."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from tidegate.contract.limits import ShareStep

_DENOMINATOR = 1_000_000
"""Of fractions that are found again in their parts: those of weights and decimals that people write."""


def split(units: int, weights: Mapping[str, int] | Mapping[str, Fraction]) -> dict[str, int]:
    """``units`` in whole parts by ``weights``, which sum to all of them.

    A larger whole gives no region less: where one did (as the largest remainder has it, Alabama's paradox), a figure
    raised within a window would have two regions own the same unit. No part is less than its exact one rounded down. So
    a cut, which is rounded down, is within both divisions that it stands between.

    The smallest weight first, in a tie the last name: each gets its part of what is left, rounded down, so what
    rounding leaves goes to the larger ones. The last two round to the nearest, in a tie to the first name.
    """
    names = sorted(weights, key=lambda name: (-weights[name], name))
    whole = sum((Fraction(weight) for weight in weights.values()), Fraction(0))
    if whole <= 0:
        raise ValueError("nothing to split by: the weights must sum to more than 0")
    left, parts = units, dict.fromkeys(sorted(weights), 0)
    while len(names) > 2:
        name = names.pop()
        parts[name] = int(left * weights[name] / whole)
        left -= parts[name]
        whole -= weights[name]
    first, *others = sorted(names)
    parts[first] = int(left * weights[first] / whole + Fraction(1, 2)) if others else left
    for name in others:
        parts[name] = left - parts[first]
    return parts


def equal_shares(units: int, regions: Sequence[str]) -> dict[str, int]:
    """The same for each region, but for single units."""
    return split(units, dict.fromkeys(regions, Fraction(1))) if regions else {}


def explicit_shares(units: int, fractions: Mapping[str, float], regions: Sequence[str]) -> dict[str, int]:
    """By the given fractions; a region without one gets nothing."""
    # through the decimal text, so that 0.1 means a tenth
    weights = {region: Fraction(repr(fractions.get(region, 0.0))) for region in regions}
    return split(units, weights) if sum(weights.values()) else {}


def in_proportion(shares: Mapping[str, int], old: int, new: int) -> dict[str, int]:
    """Parts of ``new`` as ``shares`` are parts of ``old``, none left over.

    Shares that sum to less are a cut, under way from one division to the next: rounded down, so that no region has more
    than under either, whichever of the three another region goes by.
    """
    if old and sum(shares.values()) == old:
        return split(new, shares)
    return {name: units * new // old for name, units in shares.items()} if old else {}


def units_of(step: ShareStep, whole: int) -> dict[str, int]:
    """What each region has of ``whole`` units by a step of parts: a ``split`` by the fractions that they stand for.

    A third is 333,333,333,333 parts, and so much of 60 is less than 20. Were that rounded down, what one region spent
    of its 20 units would be another's once the limit changes and changes back within a window.
    """
    if not step.limit or sum(step.shares.values()) != step.limit:
        return in_proportion(step.shares, step.limit, whole)
    return split(whole, _fractions(tuple(step.shares.items()), step.limit))


@lru_cache(maxsize=1_024)
def _fractions(parts: tuple[tuple[str, int], ...], whole: int) -> Mapping[str, Fraction]:
    """The fractions that parts stand for: the simple ones of which they are the ``split``, else the parts themselves.

    Cached, as many clients' figures are divided by one step.
    """
    exact = {name: Fraction(part, whole) for name, part in parts}
    simple = {name: fraction.limit_denominator(_DENOMINATOR) for name, fraction in exact.items()}
    return simple if split(whole, simple) == dict(parts) else exact
