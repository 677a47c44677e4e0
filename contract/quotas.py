"""How whole units are split over regions: nodes and the control plane must do it alike."""

from collections.abc import Mapping
from fractions import Fraction


def split(units: int, weights: Mapping[str, int] | Mapping[str, Fraction]) -> dict[str, int]:
    """``units`` in whole parts by ``weights``, which sum to all of them.

    A larger whole gives no region less: where one did (as the largest remainder has it, Alabama's paradox), a figure
    raised within a window would have two regions own the same unit. And no part is less than its exact one rounded
    down, so that a cut, which is rounded down, is within both divisions that it stands between.

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
