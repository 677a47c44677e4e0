"""The factor of a backend, decided once a tick (a second) from reports: cut quickly, raise step by step, never flap.

Rules of ``docs/adaptive.md``. A load of 1.0 is a full backend; it is a median, so that no single reporter moves it. All
functions are pure. Times are microseconds since the epoch.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from data_plane.config.load_gate import FULL
from tidegate.contract.load import AdaptivePolicy, Backend, BackendLoad, ClassLoad

TICK_S = 1.0
SEEN_AFTER_US = 1_000_000
"""A report covers the second before it, so only a report this long after a change shows the change."""
MAX_AHEAD_US = 5_000_000
"""A report may be this far ahead of this clock."""
MILLI = 1_000
"""Demand is in thousandths of a unit a second."""


class Report(msgspec.Struct, frozen=True):
    """A reporter's newest report on a backend, by one node; ``weight`` is how many requests it covers."""

    reporter: str
    at_us: int
    signals: dict[str, float]
    weight: int = 1


class Signal(NamedTuple):
    """The load of a backend by one signal. ``load`` is ``None`` with too few fresh reporters.

    ``at_us`` is the time of the middle report.
    """

    load: float | None
    name: str | None
    reporters: int
    at_us: int = 0


def signal_of(reports: Iterable[Report], policy: AdaptivePolicy, now_us: int) -> Signal:
    """The signal with the highest load, among signals with enough fresh reporters."""
    fresh_us = int(policy.stale_after_s * 1_000_000)
    fresh = [report for report in reports if now_us - fresh_us <= report.at_us <= now_us + MAX_AHEAD_US]
    found, max_reporters = Signal(None, None, 0), 0
    for signal, full in policy.signals.items():
        values = _by_reporter(fresh, signal)
        max_reporters = max(max_reporters, len(values))
        if len(values) < policy.min_reporters:
            continue
        load = lower_median(values) / full
        if found.load is None or load > found.load:
            at_us = lower_median([report.at_us for report in fresh if signal in report.signals])
            found = Signal(load, signal, len(values), int(at_us))
    return found if found.load is not None else Signal(None, None, max_reporters)


def lower_median(values: Sequence[float]) -> float:
    """The middle value, or the lower of two middle values: of two reporters both must report a load."""
    return sorted(values)[(len(values) - 1) // 2]


def _by_reporter(reports: Iterable[Report], signal: str) -> list[float]:
    """One value a reporter: the mean by weight, if several nodes received its reports."""
    totals: dict[str, tuple[float, int]] = {}
    for report in reports:
        value = report.signals.get(signal)
        if value is not None:
            total, weight = totals.get(report.reporter, (0.0, 0))
            totals[report.reporter] = total + value * report.weight, weight + report.weight
    return [total / weight for total, weight in totals.values() if weight > 0]


class ControlState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a backend's controller. ``since_us`` is when the factor last changed.

    ``above``, ``calm`` and ``unseen`` count ticks in a row.
    """

    factor: float = 1.0
    since_us: int = 0
    reason: str = "no_reports"
    signal: str | None = None
    smoothed: float | None = None
    reporters: int = 0
    above: int = 0
    calm: int = 0
    unseen: int = 0
    seen_us: int = 0
    """When the newest report that was used was made."""


def tick(state: ControlState, policy: AdaptivePolicy, signal: Signal, now_us: int) -> ControlState:
    """The state a tick later."""
    if signal.load is None:
        return _without_reports(state, policy, signal, now_us)
    state = msgspec.structs.replace(
        state, signal=signal.name, reporters=signal.reporters, unseen=0,
        # a clock that was set back, or is ahead on another node, must not make all reports look old
        since_us=min(state.since_us, now_us), seen_us=min(state.seen_us, now_us + MAX_AHEAD_US),
    )  # fmt: skip
    if signal.at_us <= state.seen_us or (state.since_us and signal.at_us < state.since_us + SEEN_AFTER_US):
        # used before, or from before the last change shows: it would cause the same change again
        return state
    # a load beyond the deepest cut adds nothing but a long memory in the average
    load = min(signal.load, 2 * policy.target / policy.deepest_cut)
    before = load if state.smoothed is None else state.smoothed
    smoothed = before + policy.smoothing * (load - before)
    state = msgspec.structs.replace(state, smoothed=smoothed, seen_us=signal.at_us)
    lowest = policy.floor if policy.type == "controller" else max(policy.floor, policy.steps[0].factor)
    if state.factor < lowest:
        return _raise_to_lowest(state, min(lowest, state.factor + policy.raise_by), now_us)
    if policy.type == "steps":
        return _steps(state, policy, load, smoothed, now_us)
    return _controller(state, policy, load, smoothed, now_us)


def override(state: ControlState, factor: float, now_us: int) -> ControlState:
    """The state under an operator's factor; later ticks start from that factor."""
    kept = msgspec.structs.replace(state, above=0, calm=0, unseen=0, smoothed=None)
    return _set_factor(kept, factor, "manual", now_us)


def _controller(state: ControlState, policy: AdaptivePolicy, newest: float, load: float, now_us: int) -> ControlState:
    if load > policy.target:
        # if only the average is above the target, the overload has ended
        above = state.above + 1 if newest > policy.target else 0
        if above < policy.cut_after or state.factor <= policy.floor:
            return _stay(state, "held", above=above)
        cut = max(policy.deepest_cut, policy.target / load)
        return _cut(state, max(policy.floor, state.factor * cut), "cut", now_us)
    if state.factor >= 1.0:
        return _stay(state, "full")
    higher, bound = min(1.0, state.factor + policy.raise_by), policy.target - policy.hysteresis
    if not _fits(load, state.factor, higher, bound):
        # from a factor near 0 a whole step multiplies the load, and not even an idle backend's would fit
        higher = min(higher, 2 * state.factor)
    calm = state.calm + 1 if _fits(load, state.factor, higher, bound) else 0
    if calm < policy.raise_after:
        return _stay(state, "held", calm=calm)
    return _raise(state, higher, "raised", now_us, calm=calm)


def _steps(state: ControlState, policy: AdaptivePolicy, newest: float, load: float, now_us: int) -> ControlState:
    wanted = next((step.factor for step in policy.steps if min(newest, load) > step.above), 1.0)
    if wanted < state.factor:
        above = state.above + 1
        if above < policy.cut_after or state.factor <= policy.floor:
            return _stay(state, "held", above=above)
        return _cut(state, max(policy.floor, wanted), "stepped", now_us)
    if state.factor >= 1.0:
        return _stay(state, "full")
    higher, bound = _next_step_up(state.factor, policy)
    if not _fits(load, state.factor, higher, bound - policy.hysteresis):
        return _stay(state, "held")
    calm = state.calm + 1
    if calm < policy.raise_after:
        return _stay(state, "held", calm=calm)
    return _raise(state, higher, "stepped", now_us)


def _next_step_up(factor: float, policy: AdaptivePolicy) -> tuple[float, float]:
    """The next higher factor, and the load above which it would be cut again."""
    for tighter, step in pairwise(policy.steps):
        if step.factor > factor:
            return step.factor, tighter.above
    return 1.0, policy.steps[-1].above


def _without_reports(state: ControlState, policy: AdaptivePolicy, signal: Signal, now_us: int) -> ControlState:
    """Too few reporters are no overload: hold the factor, then raise it step by step."""
    unseen = state.unseen + 1
    state = msgspec.structs.replace(
        state, smoothed=None, signal=None, reporters=signal.reporters, above=0, calm=0, unseen=unseen
    )
    if state.factor >= 1.0:
        return _stay(state, "no_reports")
    if unseen * TICK_S <= policy.hold_s:
        return _stay(state, "reporters_missing")
    return _set_factor(state, min(1.0, state.factor + policy.raise_by), "recovering_unseen", now_us)


def _fits(load: float, factor: float, higher: float, bound: float) -> bool:
    """Whether the load stays within ``bound`` at the higher factor, so that a raise does not cause the next cut."""
    return load * higher / max(factor, 1e-6) <= bound


def _stay(state: ControlState, reason: str, *, above: int = 0, calm: int = 0) -> ControlState:
    return msgspec.structs.replace(state, reason=reason, above=above, calm=calm)


def _cut(state: ControlState, factor: float, reason: str, now_us: int) -> ControlState:
    """Cut the factor and restart the average, or past load would cause the same cut again."""
    return _set_factor(msgspec.structs.replace(state, smoothed=None, above=0, calm=0), factor, reason, now_us)


def _raise(state: ControlState, factor: float, reason: str, now_us: int, *, calm: int = 0) -> ControlState:
    """Raise the factor, and scale the average to the load that this will cause."""
    smoothed = None if state.smoothed is None else state.smoothed * factor / max(state.factor, 1e-6)
    return _set_factor(msgspec.structs.replace(state, smoothed=smoothed, above=0, calm=calm), factor, reason, now_us)


def _raise_to_lowest(state: ControlState, factor: float, now_us: int) -> ControlState:
    """Raise a factor that an operator left below the floor, whatever the load."""
    return _set_factor(msgspec.structs.replace(state, smoothed=None, above=0, calm=0), factor, "raised", now_us)


def _set_factor(state: ControlState, factor: float, reason: str, now_us: int) -> ControlState:
    # six digits are exact in what is shared, and rounding errors are no change
    factor = round(factor, 6)
    since_us = state.since_us if factor == state.factor else now_us
    return msgspec.structs.replace(state, factor=factor, reason=reason, since_us=since_us)


class BackendFactors(msgspec.Struct, frozen=True, kw_only=True):
    """A tick's result: the backend's factor ``whole`` and each priority's, in millionths; ``demand`` is smoothed.

    ``state`` is for the agent that decides next.
    """

    backend: str
    policy: str
    whole: int
    classes: dict[int, int]
    floor: int
    reserve: int
    demand: dict[int, int]
    state: ControlState


class SharedFactors(msgspec.Struct, frozen=True, kw_only=True):
    """The factors of all backends of a region, decided by ``node`` at ``at_us``."""

    at_us: int
    node: str
    backends: tuple[BackendFactors, ...] = ()


class NodeDemand(msgspec.Struct, frozen=True, kw_only=True):
    """A node's demand by backend and priority, in thousandths of a unit a second."""

    at_us: int
    backends: dict[str, dict[int, int]] = {}


def is_manual(backend: Backend, now_us: int) -> bool:
    """Whether an operator's factor is in force."""
    return backend.manual is not None and backend.manual.expires_at * 1_000_000 > now_us


def decide(
    backend: Backend, policy: AdaptivePolicy, state: ControlState, reports: Iterable[Report],
    demand_before: Mapping[int, int], demand: Mapping[int, int], now_us: int,
) -> BackendFactors:  # fmt: skip
    """Decide a backend's next tick. ``demand`` is by priority, of the last second, in ``MILLI``."""
    signal = signal_of(reports, policy, now_us)
    if backend.manual is not None and is_manual(backend, now_us):
        state = override(state, backend.manual.factor, now_us)
    else:
        state = tick(state, policy, signal, now_us)
    smoothed = smoothed_demand(demand_before, demand)
    whole = round(state.factor * FULL)
    capacity = capacity_milli(backend)
    if whole == FULL and signal.load is None:
        capacity = None  # demand above capacity is no sign of overload without reports
    allowed = basis_of(sum(smoothed.values()), capacity) * whole // FULL
    if capacity is not None:  # the reserve of the critical class is never cut
        allowed = max(allowed, round(capacity * policy.reserve))
    # at factor 0 a class without demand counts as 1, or its first request after a pause would pass
    asked = smoothed if whole else {priority: max(1, units) for priority, units in smoothed.items()}
    classes = share_out(allowed, asked, round(policy.class_floor * FULL))
    return BackendFactors(
        backend=backend.backend, policy=policy.policy, whole=whole, classes=classes,
        floor=round(policy.floor * FULL), reserve=round(policy.reserve * FULL), demand=smoothed, state=state,
    )  # fmt: skip


def basis_of(demand: int, capacity: int | None) -> int:
    """What a factor is a share of: the demand, or the backend's capacity if that is known and less."""
    return demand if capacity is None else min(demand, capacity)


def share_out(allowed: int, demand: Mapping[int, int], floor: int) -> dict[int, int]:
    """Factors by priority with which ``allowed`` units of all demand are admitted.

    ``demand`` is by class, in the unit of ``allowed``; no factor is below ``floor``. A class is cut only when all
    classes below it are at the floor.
    """
    if allowed >= sum(demand.values()):
        return dict.fromkeys(demand, FULL)
    factors: dict[int, int] = {}
    left = allowed - sum(floor * asked // FULL for asked in demand.values())
    for priority in sorted(demand, reverse=True):
        above_floor = (FULL - floor) * demand[priority] // FULL
        if left > 0 and left >= above_floor:
            factors[priority] = FULL
        else:
            factors[priority] = floor + max(0, left) * FULL // max(1, demand[priority])
        left -= above_floor
    return factors


def smoothed_demand(before: Mapping[int, int], now: Mapping[int, int]) -> dict[int, int]:
    """Smooth demand: it rises at once and halves each second, so that a burst is never underestimated."""
    return {priority: max(asked, (asked + before.get(priority, asked)) // 2) for priority, asked in now.items()}


def capacity_milli(backend: Backend) -> int | None:
    """The backend's capacity in thousandths of a unit a second, or ``None``."""
    capacity = backend.capacity
    return None if capacity is None else capacity.limit * MILLI * 1_000_000 // capacity.window_us


def explain(entry: BackendFactors, at_us: int, node: str) -> BackendLoad:
    """A backend's factor and its reason, for people."""
    state = entry.state
    return BackendLoad(
        backend=entry.backend,
        policy=entry.policy,
        factor=entry.whole / FULL,
        reason=state.reason,
        since=state.since_us / 1_000_000,
        decided_at=at_us / 1_000_000,
        decided_by=node,
        signal=state.signal,
        load=None if state.smoothed is None else round(state.smoothed, 4),
        reporters=state.reporters,
        classes=tuple(
            ClassLoad(
                priority=priority,
                factor=entry.classes[priority] / FULL,
                offered_per_s=entry.demand.get(priority, 0) / MILLI,
            )
            for priority in sorted(entry.classes)
        ),
    )


def explain_all(shared: SharedFactors) -> Sequence[BackendLoad]:
    """Every backend's factor and its reason, for people."""
    return [explain(factors, shared.at_us, shared.node) for factors in shared.backends]
