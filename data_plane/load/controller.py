"""The factor of a backend, one tick (a second) after the other: cut quickly, come back step by step, never flap.

Rules of ``docs/adaptive.md``. ``tick`` is pure: the same state, reading and time give the same next state.
"""

from itertools import pairwise

import msgspec

from data_plane.load.signals import AHEAD_US, Reading
from tidegate.contract.load import AdaptivePolicy

TICK_S = 1.0
SEEN_AFTER_US = 1_000_000
"""A report says what was in the second before it: one this long after a change is the first that saw it."""


class ControlState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a backend stands. ``since_us`` is when the factor took its value; counters are ticks with news in a row."""

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
    """When the newest report that was counted was made."""


def tick(state: ControlState, policy: AdaptivePolicy, now: Reading, now_us: int) -> ControlState:
    """The state a tick later."""
    if now.load is None:
        return _unseen(state, policy, now, now_us)
    state = msgspec.structs.replace(
        state, signal=now.signal, reporters=now.reporters, unseen=0,
        # a clock was set back, or another node's runs ahead: until those times come again nothing would be news
        since_us=min(state.since_us, now_us), seen_us=min(state.seen_us, now_us + AHEAD_US),
    )  # fmt: skip
    if now.at_us <= state.seen_us or (state.since_us and now.at_us < state.since_us + SEEN_AFTER_US):
        # no news, or of before the last change could show: counted, it would call for the same change again
        return state
    # far beyond the deepest cut is as good as at it: a queue of ten seconds would be remembered for as long
    load = min(now.load, 2 * policy.target / policy.deepest_cut)
    before = load if state.smoothed is None else state.smoothed
    smoothed = before + policy.smoothing * (load - before)
    state = msgspec.structs.replace(state, smoothed=smoothed, seen_us=now.at_us)
    lowest = policy.floor if policy.type == "controller" else max(policy.floor, policy.steps[0].factor)
    if state.factor < lowest:
        return _lifted(state, min(lowest, state.factor + policy.raise_by), now_us)
    if policy.type == "steps":
        return _steps(state, policy, load, smoothed, now_us)
    return _controller(state, policy, load, smoothed, now_us)


def overridden(state: ControlState, factor: float, now_us: int) -> ControlState:
    """The state while an operator's factor is in force; what follows afterwards starts from that factor."""
    kept = msgspec.structs.replace(state, above=0, calm=0, unseen=0, smoothed=None)
    return _moved(kept, factor, "manual", now_us)


def _controller(state: ControlState, policy: AdaptivePolicy, newest: float, load: float, now_us: int) -> ControlState:
    if load > policy.target:
        # where only the average is above, it remembers what is over
        above = state.above + 1 if newest > policy.target else 0
        if above < policy.cut_after or state.factor <= policy.floor:
            return _stayed(state, "held", above=above)
        cut = max(policy.deepest_cut, policy.target / load)
        return _cut(state, max(policy.floor, state.factor * cut), "cut", now_us)
    if state.factor >= 1.0:
        return _stayed(state, "full")
    higher, bound = min(1.0, state.factor + policy.raise_by), policy.target - policy.hysteresis
    if not _fits(load, state.factor, higher, bound):
        # from near nothing that may be many times as much, and what a backend does at rest would never fit
        higher = min(higher, 2 * state.factor)
    calm = state.calm + 1 if _fits(load, state.factor, higher, bound) else 0
    if calm < policy.raise_after:
        return _stayed(state, "held", calm=calm)
    return _raised(state, higher, "raised", now_us, calm=calm)


def _steps(state: ControlState, policy: AdaptivePolicy, newest: float, load: float, now_us: int) -> ControlState:
    wanted = next((step.factor for step in policy.steps if min(newest, load) > step.above), 1.0)
    if wanted < state.factor:
        above = state.above + 1
        if above < policy.cut_after or state.factor <= policy.floor:
            return _stayed(state, "held", above=above)
        return _cut(state, max(policy.floor, wanted), "stepped", now_us)
    if state.factor >= 1.0:
        return _stayed(state, "full")
    higher, bound = _next_step_up(state.factor, policy)
    if not _fits(load, state.factor, higher, bound - policy.hysteresis):
        return _stayed(state, "held")
    calm = state.calm + 1
    if calm < policy.raise_after:
        return _stayed(state, "held", calm=calm)
    return _raised(state, higher, "stepped", now_us)


def _next_step_up(factor: float, policy: AdaptivePolicy) -> tuple[float, float]:
    """The next higher factor, and the load beyond which it would be too much."""
    for tighter, step in pairwise(policy.steps):
        if step.factor > factor:
            return step.factor, tighter.above
    return 1.0, policy.steps[-1].above


def _unseen(state: ControlState, policy: AdaptivePolicy, now: Reading, now_us: int) -> ControlState:
    """Too few speak. That is no overload: hold, then recover step by step."""
    unseen = state.unseen + 1
    state = msgspec.structs.replace(
        state, smoothed=None, signal=None, reporters=now.reporters, above=0, calm=0, unseen=unseen
    )
    if state.factor >= 1.0:
        return _stayed(state, "no_reports")
    if unseen * TICK_S <= policy.hold_s:
        return _stayed(state, "reporters_missing")
    return _moved(state, min(1.0, state.factor + policy.raise_by), "recovering_unseen", now_us)


def _fits(load: float, factor: float, higher: float, bound: float) -> bool:
    """Whether the load will stay within ``bound`` once more is admitted: raising may not call for the next cut."""
    return load * higher / max(factor, 1e-6) <= bound


def _stayed(state: ControlState, reason: str, *, above: int = 0, calm: int = 0) -> ControlState:
    return msgspec.structs.replace(state, reason=reason, above=above, calm=calm)


def _cut(state: ControlState, factor: float, reason: str, now_us: int) -> ControlState:
    """Less from now on; the average begins afresh, or the past would call for the same cut again."""
    return _moved(msgspec.structs.replace(state, smoothed=None, above=0, calm=0), factor, reason, now_us)


def _raised(state: ControlState, factor: float, reason: str, now_us: int, *, calm: int = 0) -> ControlState:
    """More from now on; the average expects what follows."""
    smoothed = None if state.smoothed is None else state.smoothed * factor / max(state.factor, 1e-6)
    return _moved(msgspec.structs.replace(state, smoothed=smoothed, above=0, calm=calm), factor, reason, now_us)


def _lifted(state: ControlState, factor: float, now_us: int) -> ControlState:
    """Up again from where load alone never leads, as an operator does: whatever the load, for it holds nothing there.

    (What an idle backend reports would be too much to expect after any raise from nothing.)
    """
    return _moved(msgspec.structs.replace(state, smoothed=None, above=0, calm=0), factor, "raised", now_us)


def _moved(state: ControlState, factor: float, reason: str, now_us: int) -> ControlState:
    # six digits: what is shared is exact, and a float's tail makes no news
    factor = round(factor, 6)
    since_us = state.since_us if factor == state.factor else now_us
    return msgspec.structs.replace(state, factor=factor, reason=reason, since_us=since_us)
