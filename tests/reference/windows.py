"""``fixed_window`` and ``sliding_window``: counts of the current and the previous window.

Window ids never go back: a stored newer id wins over a clock that stepped back.
"""

from typing import NamedTuple

from data_plane.store.packing import Outcome
from tests.reference.verdict import Stored, Verdict, denied, denied_forever, peeked
from tidegate.contract.calendar import calendar_anchor_us, month_of, month_start_us
from tidegate.contract.limits import LimitRule, nominal_window_us, sliding_tick_us


class WindowState(NamedTuple):
    """Units taken in window ``id`` and in the one before it."""

    id: int
    taken: int
    taken_before: int = 0


def fixed_window(rule: LimitRule, state: WindowState | None, cost: int, now_us: int) -> Verdict[WindowState]:
    """``taken + cost <= limit`` in a window aligned to the epoch or to the UTC calendar."""
    current = _rolled(state, _window_id(rule, now_us))
    ends_us = _window_start_us(rule, current.id + 1)
    reset_us = ends_us - now_us
    if rule.limit == 0:
        return denied_forever(0, reset_us)
    room = rule.limit - current.taken
    if cost > rule.limit:
        return denied_forever(max(0, room), reset_us)
    if cost > room:
        return denied(max(0, room), reset_us, reset_us)
    if cost == 0:
        return peeked(room, reset_us)
    return _admitted(current, room, cost, reset_us, ends_us)


def sliding_window(rule: LimitRule, state: WindowState | None, cost: int, now_us: int) -> Verdict[WindowState]:
    """``before x (W - elapsed) / W + taken + cost <= limit``, with time in ticks so that the product stays exact."""
    window_us = nominal_window_us(rule)
    tick_us = sliding_tick_us(rule.limit, window_us)
    ticks = window_us // tick_us
    window, elapsed = divmod(now_us // tick_us, ticks)
    current = _rolled(state, window)
    if current.id > window:
        elapsed = 0
    ends_us = (current.id + 1) * window_us
    reset_us = ends_us - now_us
    if rule.limit == 0:
        return denied_forever(0, reset_us)
    weighted = -(-current.taken_before * (ticks - elapsed) // ticks)
    room = rule.limit - current.taken - weighted
    if cost > rule.limit:
        return denied_forever(max(0, room), reset_us)
    if cost > room:
        wait_us = reset_us + _sliding_wait(rule.limit - cost, current, ticks) * tick_us
        return denied(max(0, room), reset_us, wait_us)
    if cost == 0:
        return peeked(room, reset_us)
    return _admitted(current, room, cost, reset_us, ends_us + window_us)


def _sliding_wait(spare: int, current: WindowState, ticks: int) -> int:
    """Ticks from the current window's end (negative: before it) until counts weigh no more than ``spare`` units.

    A count of ``n`` weighs ``n x k / ticks`` while ``k`` ticks of its weight are left.
    """
    if spare >= current.taken:
        before_end = (spare - current.taken) * ticks // current.taken_before
        if before_end > 0:
            return -before_end
    if current.taken == 0:
        return 0
    return ticks - min(ticks, spare * ticks // current.taken)


def _admitted(current: WindowState, room: int, cost: int, reset_us: int, forget_us: int) -> Verdict[WindowState]:
    return Verdict(
        Outcome(allowed=True, remaining=room, reset_us=reset_us, retry_us=0, delay_us=0),
        Outcome(allowed=True, remaining=room - cost, reset_us=reset_us, retry_us=0, delay_us=0),
        on_consumed=Stored(current._replace(taken=current.taken + cost), forget_us),
    )


def _rolled(state: WindowState | None, window: int) -> WindowState:
    """The state as seen from ``window``."""
    if state is None or state.id < window - 1:
        return WindowState(window, 0, 0)
    if state.id == window - 1:
        return WindowState(window, 0, state.taken)
    return state


def _window_id(rule: LimitRule, now_us: int) -> int:
    if rule.calendar is None:
        return now_us // nominal_window_us(rule)
    since_us = now_us - calendar_anchor_us(rule)
    return month_of(since_us) if rule.calendar == "month" else since_us // nominal_window_us(rule)


def _window_start_us(rule: LimitRule, window: int) -> int:
    if rule.calendar is None:
        return window * nominal_window_us(rule)
    start_us = month_start_us(window) if rule.calendar == "month" else window * nominal_window_us(rule)
    return start_us + calendar_anchor_us(rule)
