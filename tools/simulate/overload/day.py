"""A healthy day: demand rises and falls with the hours, reporters are off, and nothing may be cut.

Second by second, without single requests: 86,400 of them take a few seconds to run.
"""

import math
import random
from typing import NamedTuple

from tools.simulate.overload.adaptive import Adaptive
from tools.simulate.overload.scenario import Scenario

DAY_S = 86_400
LOWEST, HIGHEST = 0.15, 0.6
"""Shares of capacity that are asked for at night and at noon."""


class Day(NamedTuple):
    """Seconds in which the factor, and each class's own, was below 1; the highest and mean share of capacity in use."""

    cut_s: int
    class_cut_s: dict[str, int]
    highest: float
    mean: float


def healthy_day(scenario: Scenario, seed: int, *, with_capacity: bool = False) -> Day:
    """Run a day of the scenario's reporters under its policy."""
    limiter = Adaptive(scenario, seed, with_capacity=with_capacity)
    chance = random.Random(seed)  # noqa: S311  a simulation
    cut_s, highest, total = 0, 0.0, 0.0
    class_cut_s = dict.fromkeys(limiter.class_factors(), 0)
    for second in range(DAY_S):
        wave = (1 - math.cos(2 * math.pi * second / DAY_S)) / 2
        mean = scenario.per_second * (LOWEST + (HIGHEST - LOWEST) * wave)
        asked = max(0.0, chance.gauss(mean, math.sqrt(mean)))  # a Poisson count, near enough
        use = min(1.0, asked / scenario.per_second)
        waited_ms = 1_000 / scenario.per_second * use / 2 / max(0.02, 1 - use)  # M/D/1 (Pollaczek-Khinchine)
        limiter.take(asked)
        limiter.apply(float(second))
        limiter.second(second + 1.0, use, waited_ms)
        factor = limiter.factor()
        cut_s += factor is not None and factor < 1.0
        for name, share in limiter.class_factors().items():
            class_cut_s[name] += share < 1.0
        highest, total = max(highest, use), total + use
    return Day(cut_s, class_cut_s, highest, total / DAY_S)
