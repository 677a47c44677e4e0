"""One backend's decision of one tick: from what reporters say and what is asked for to a factor for each class."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from data_plane.config.load_classes import FULL, basis_of, share_out
from data_plane.load.controller import ControlState, overridden, tick
from data_plane.load.signals import Said, reading
from tidegate.contract.load import AdaptivePolicy, Backend

MILLI = 1_000
"""Demand is counted in thousandths of a unit a second."""


class Decided(NamedTuple):
    """``whole`` is the backend's factor, ``classes`` each priority's, in millionths; ``demand`` as smoothed."""

    state: ControlState
    demand: dict[int, int]
    whole: int
    classes: dict[int, int]


def is_manual(backend: Backend, now_us: int) -> bool:
    """Whether an operator's factor is in force."""
    return backend.manual is not None and backend.manual.expires_at * 1_000_000 > now_us


def decide(
    backend: Backend, policy: AdaptivePolicy, state: ControlState, said: Iterable[Said],
    demand_before: Mapping[int, int], demand: Mapping[int, int], now_us: int,
) -> Decided:  # fmt: skip
    """The next tick of a backend. ``demand`` is what each priority asked for in the last second, in ``MILLI``."""
    heard = reading(said, policy, now_us)
    if backend.manual is not None and is_manual(backend, now_us):
        state = overridden(state, backend.manual.factor, now_us)
    else:
        state = tick(state, policy, heard, now_us)
    smoothed = smoothed_demand(demand_before, demand)
    whole = round(state.factor * FULL)
    capacity = capacity_milli(backend)
    if whole == FULL and heard.load is None:
        capacity = None  # that more is asked for than it is said to do is no report that it has too much to do
    allowed = basis_of(sum(smoothed.values()), capacity) * whole // FULL
    if capacity is not None:  # the reserve is cut by nothing: it is what the critical class can count on
        allowed = max(allowed, round(capacity * policy.reserve))
    # of nothing that is asked for any share would be all of it: at 0 not even the first after a pause may pass
    asked = smoothed if whole else {priority: max(1, units) for priority, units in smoothed.items()}
    return Decided(state, smoothed, whole, share_out(allowed, asked, round(policy.class_floor * FULL)))


def smoothed_demand(before: Mapping[int, int], now: Mapping[int, int]) -> dict[int, int]:
    """Demand that rises at once and falls by half a second: what is short of a burst would admit too much of it."""
    return {priority: max(asked, (asked + before.get(priority, asked)) // 2) for priority, asked in now.items()}


def capacity_milli(backend: Backend) -> int | None:
    """The backend's capacity in thousandths of a unit a second, where it is known."""
    capacity = backend.capacity
    return None if capacity is None else capacity.limit * MILLI * 1_000_000 // capacity.window_us
