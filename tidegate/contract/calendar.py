"""Windows of limits: where each begins, alike for regions that count, shares that move and usage that is reported.

Ids count windows: from the epoch, from an anchor, or months of the UTC calendar by civil dates. The day arithmetic is
that of the proleptic Gregorian calendar with years counted from March, so that the leap day is the last of its year.
"""

from typing import NamedTuple

from tidegate.contract.limits import (
    BUCKET_ALGORITHMS,
    LAST_ANCHOR_DAY,
    MONDAY_US,
    LimitRule,
    capacity,
    nominal_window_us,
    reduced_rate,
    sliding_tick_us,
)

EPOCH_FLOOR_US = 600_000_000
"""Loans of bucket capacity last to the end of an epoch of at least this length (``docs/regions.md``)."""
SKEW_US = 1_000_000
"""The largest difference of two regions' clocks."""
_DAY_US = 86_400_000_000
_DAYS_TO_1970 = 719_468
_MONTHS_TO_1970 = 1970 * 12


class WindowGrid(NamedTuple):
    """How time is cut into windows.

    ``length_us`` 0 means calendar months. A sliding window's weight has ``ticks`` steps (else 0) of ``tick_us``.
    """

    length_us: int
    anchor_us: int = 0
    ticks: int = 0
    tick_us: int = 1


def grid_of(rule: LimitRule) -> WindowGrid:
    """Windows of a window algorithm; for buckets the epochs at whose end loans of capacity end."""
    window_us = nominal_window_us(rule)
    if rule.algorithm in BUCKET_ALGORITHMS:
        return WindowGrid(cycle_us(rule))
    if rule.calendar is not None:
        return WindowGrid(0 if rule.calendar == "month" else window_us, calendar_anchor_us(rule))
    if rule.algorithm == "sliding_window":
        tick_us = sliding_tick_us(max(1, rule.limit), window_us)
        return WindowGrid(window_us, 0, window_us // tick_us, tick_us)
    return WindowGrid(window_us)


def cycle_us(rule: LimitRule) -> int:
    """The length of a window (of a month: 31 days), or of a bucket's epoch of loans."""
    if rule.algorithm in BUCKET_ALGORITHMS:
        rate, unit = reduced_rate(max(1, rule.limit), nominal_window_us(rule))
        return max(EPOCH_FLOOR_US, -(-3 * capacity(rule) * unit // rate))
    return nominal_window_us(rule)


def id_at(grid: WindowGrid, at_us: int) -> int:
    """The id of the window that holds this instant."""
    since_us = at_us - grid.anchor_us
    return since_us // grid.length_us if grid.length_us else month_of(since_us)


def start_us(grid: WindowGrid, id: int) -> int:
    """The first instant of a window."""
    return (id * grid.length_us if grid.length_us else month_start_us(id)) + grid.anchor_us


def next_start_us(rule: LimitRule, at_us: int) -> int:
    """The beginning of the first window (or epoch) that begins after ``at_us``."""
    grid = grid_of(rule)
    return start_us(grid, id_at(grid, at_us) + 1)


def calendar_anchor_us(rule: LimitRule) -> int:
    """Where the first window begins: for months, the time after 00:00 UTC of the 1st; else less than a window."""
    if rule.calendar == "month":
        day = min(_day_of_month(rule.anchor_us), LAST_ANCHOR_DAY)
        return (day - 1) * _DAY_US + rule.anchor_us % _DAY_US
    anchor_us = rule.anchor_us or (MONDAY_US if rule.calendar == "week" else 0)
    return anchor_us % nominal_window_us(rule)


def month_of(instant_us: int) -> int:
    """How many months after January 1970 this instant lies in."""
    year, march_month, _ = _civil(instant_us)
    return year * 12 + march_month + 2 - _MONTHS_TO_1970


def month_start_us(month: int) -> int:
    """The instant at which a month, counted from January 1970, begins."""
    year, march_month = divmod(month + _MONTHS_TO_1970 - 2, 12)
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * march_month + 2) // 5
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return (era * 146_097 + day_of_era - _DAYS_TO_1970) * _DAY_US


def _day_of_month(instant_us: int) -> int:
    _, _, day = _civil(instant_us)
    return day


def _civil(instant_us: int) -> tuple[int, int, int]:
    """Year counted from March, month of that year (0 is March), day of the month."""
    era, day_of_era = divmod(instant_us // _DAY_US + _DAYS_TO_1970, 146_097)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    return era * 400 + year_of_era, march_month, day
