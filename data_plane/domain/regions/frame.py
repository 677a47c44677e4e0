"""Window ids and rights epochs: where they begin, as every region computes them from its own clock."""

from typing import NamedTuple

from contract.limits import BUCKET_ALGORITHMS, LimitRule, capacity, nominal_window_us, reduced_rate, sliding_tick_us
from data_plane.domain.algorithms.calendar import calendar_anchor_us, month_of, month_start_us
from data_plane.domain.regions.rules import Timing


class Frame(NamedTuple):
    """How time is cut into ids.

    ``length_us`` 0 means calendar months. A sliding window's weight has ``ticks`` steps (else 0) of ``tick_us``.
    """

    length_us: int
    anchor_us: int = 0
    ticks: int = 0
    tick_us: int = 1


def frame_of(rule: LimitRule, timing: Timing) -> Frame:
    """Windows of a window algorithm; for buckets the epochs at whose end loans of capacity end."""
    window_us = nominal_window_us(rule)
    if rule.algorithm in BUCKET_ALGORITHMS:
        rate, unit = reduced_rate(max(1, rule.limit), window_us)
        return Frame(max(timing.epoch_floor_us, -(-3 * capacity(rule) * unit // rate)))
    if rule.calendar is not None:
        return Frame(0 if rule.calendar == "month" else window_us, calendar_anchor_us(rule))
    if rule.algorithm == "sliding_window":
        tick_us = sliding_tick_us(max(1, rule.limit), window_us)
        return Frame(window_us, 0, window_us // tick_us, tick_us)
    return Frame(window_us)


def id_at(frame: Frame, now_us: int) -> int:
    """The id that holds this instant."""
    since_us = now_us - frame.anchor_us
    return since_us // frame.length_us if frame.length_us else month_of(since_us)


def start_us(frame: Frame, id: int) -> int:
    """The first instant of an id."""
    return (id * frame.length_us if frame.length_us else month_start_us(id)) + frame.anchor_us


def weight(frame: Frame, id: int, now_us: int) -> int:
    """Ticks, of ``frame.ticks``, that the id before ``id`` still weighs: all of them before ``id`` begins."""
    elapsed = (now_us - start_us(frame, id)) // frame.tick_us
    return frame.ticks - min(max(elapsed, 0), frame.ticks)


def first_free_id(frame: Frame, now_us: int, skew_us: int) -> int:
    """The first id under which nothing can have been spent or given yet, here, by this clock."""
    return id_at(frame, now_us + skew_us) + 1
