"""From what several reporters say to one load, by median: one reporter alone, honest or not, moves nothing.

A load of 1.0 is a full backend. Times are microseconds since the epoch.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tidegate.contract.load import AdaptivePolicy

AHEAD_US = 5_000_000
"""A report may come from this far in the future: clocks differ."""


class Said(NamedTuple):
    """What one reporter last said of a backend, as seen by one node; ``weight`` is how many requests it saw."""

    reporter: str
    at_us: int
    signals: Mapping[str, float]
    weight: int = 1


class Reading(NamedTuple):
    """The load at one instant. ``load`` is ``None`` when too few speak; ``reporters`` is how many do, of one signal.

    ``at_us`` is when they said so (the middle one of them).
    """

    load: float | None
    signal: str | None
    reporters: int
    at_us: int = 0


def reading(said: Iterable[Said], policy: AdaptivePolicy, now_us: int) -> Reading:
    """The load by the signal that weighs most, among those that enough reporters speak of freshly."""
    fresh_us = int(policy.stale_after_s * 1_000_000)
    fresh = [one for one in said if now_us - fresh_us <= one.at_us <= now_us + AHEAD_US]
    found, most = Reading(None, None, 0), 0
    for signal, full in policy.signals.items():
        values = _by_reporter(fresh, signal)
        most = max(most, len(values))
        if len(values) < policy.min_reporters:
            continue
        load = lower_median(values) / full
        if found.load is None or load > found.load:
            at_us = lower_median([one.at_us for one in fresh if signal in one.signals])
            found = Reading(load, signal, len(values), int(at_us))
    return found if found.load is not None else Reading(None, None, most)


def lower_median(values: Sequence[float]) -> float:
    """The middle value; of two middle ones the lower, so that of two reporters both must see a load."""
    return sorted(values)[(len(values) - 1) // 2]


def _by_reporter(said: Iterable[Said], signal: str) -> list[float]:
    """One value a reporter: where several nodes heard it, the mean by weight."""
    totals: dict[str, tuple[float, int]] = {}
    for one in said:
        value = one.signals.get(signal)
        if value is not None:
            total, weight = totals.get(one.reporter, (0.0, 0))
            totals[one.reporter] = total + value * one.weight, weight + one.weight
    return [total / weight for total, weight in totals.values() if weight > 0]
