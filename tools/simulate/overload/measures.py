"""What a run comes to: figures that can be compared, and the promises of the adaptive limit."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from tools.simulate.overload.scenario import Scenario
from tools.simulate.overload.world import Second

SWING = 0.1
SETTLING_S = 15.0


class Measures(NamedTuple):
    """Times are seconds; ``excess`` and ``backlog`` are seconds of full capacity; shares are of 1."""

    excess: float
    """Work admitted beyond capacity while the backend was not itself."""
    goodput: float
    """Work answered in time during the overload, as a share of capacity."""
    wasted: float
    """Work done for nobody, as a share of all that was done."""
    critical: float
    """Share of the highest class's requests that were answered in time during the overload."""
    p99_delay_s: float
    """Queueing of what was answered during the overload, once it had 15 s to settle."""
    reacted_after_s: float
    """Until no more than capacity was admitted for three seconds."""
    oscillations: int
    """Of the factor (of what is admitted, where there is none) beyond 10%, once settled."""
    recovered_after_s: float
    """Until everybody was admitted and nobody waited, after the overload."""


def measure(scenario: Scenario, seconds: Sequence[Second]) -> Measures:
    """The figures of a run."""
    begin, end = scenario.overload
    during = [one for one in seconds if begin <= one.at_s < end]
    after = [one for one in seconds if one.at_s >= end]
    settled = [one for one in during if one.at_s >= begin + SETTLING_S]
    capacity = sum(one.capacity for one in during)
    excess = sum(max(0.0, sum(one.admitted) - one.capacity) / one.capacity for one in [*during, *after])
    served = sum(sum(one.served) for one in during)
    worked = served + sum(one.wasted for one in during)
    highest = max(range(len(scenario.groups)), key=lambda place: scenario.groups[place].priority)
    offered = sum(one.offered[highest] for one in during)
    delays = sorted(delay for one in settled for delay in one.delays_s)
    return Measures(
        excess=excess,
        goodput=served / capacity,
        wasted=1 - served / worked if worked else 0.0,
        critical=sum(one.served[highest] for one in during) / offered if offered else 1.0,
        p99_delay_s=delays[int(len(delays) * 0.99)] if delays else 0.0,
        reacted_after_s=_reacted_after(during),
        oscillations=_oscillations([_level(one) for one in settled]),
        recovered_after_s=_recovered_after(after, end),
    )


def violations(scenario: Scenario, found: Measures) -> Iterator[str]:
    """The promises that a run broke."""
    expect = scenario.expect
    if found.excess > expect.most_excess:
        yield f"{found.excess:.1f} s of capacity were admitted in excess, {expect.most_excess:g} allowed"
    if found.critical < expect.least_critical:
        yield f"{found.critical:.1%} of the critical class was served, {expect.least_critical:.0%} promised"
    if found.recovered_after_s > expect.recovered_within_s:
        yield f"recovery took {found.recovered_after_s:g} s, {expect.recovered_within_s:g} allowed"
    if found.oscillations > expect.most_oscillations:
        yield f"{found.oscillations} oscillations beyond {SWING:.0%}, {expect.most_oscillations} allowed"
    if found.goodput < expect.least_goodput:
        yield f"collapse: {found.goodput:.0%} of capacity was of use, {expect.least_goodput:.0%} promised"


def _level(one: Second) -> float:
    return one.factor if one.factor is not None else sum(one.admitted) / one.capacity


def _reacted_after(during: Sequence[Second]) -> float:
    calm = 0
    for place, one in enumerate(during):
        calm = calm + 1 if sum(one.admitted) <= one.capacity * 1.05 else 0
        if calm == 3:
            return float(place - 2)
    return math.inf


def _recovered_after(after: Sequence[Second], end: float) -> float:
    """The first second from which on all that came was admitted, for five seconds, and the queue was empty."""
    calm = 0
    for one in after:
        everybody = sum(one.admitted) == sum(one.offered) and one.queue_delay_s < 0.1
        calm = calm + 1 if everybody and (one.factor is None or one.factor >= 1.0) else 0
        if calm == 5:
            return one.at_s - 4 - end
    return math.inf


def _oscillations(levels: Sequence[float]) -> int:
    """Full swings, down and up again, each beyond 10% of where they began."""
    turns: list[float] = []
    for level in levels:
        if len(turns) >= 2 and (turns[-1] - turns[-2]) * (level - turns[-1]) >= 0:
            turns[-1] = level
        elif not turns or abs(level - turns[-1]) > SWING * turns[-1]:
            turns.append(level)
    swings = sum(1 for a, b in pairwise(turns) if abs(b - a) > SWING * a)
    return swings // 2
