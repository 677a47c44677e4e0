"""When windows begin, as nodes compute it: a share that moves is felt from the beginning of one."""

from datetime import UTC, datetime, timedelta

from contract.limits import BUCKET_ALGORITHMS, MONDAY_US, LimitRule, capacity, nominal_window_us, reduced_rate

EPOCH_FLOOR_US = 600_000_000
"""Loans of bucket capacity last to the end of an epoch of at least this length (``docs/regions.md``)."""
LAST_ANCHOR_DAY = 28
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_MICROSECOND = timedelta(microseconds=1)


def cycle_us(rule: LimitRule) -> int:
    """The length of a window (of a month: 31 days), or of a bucket's epoch of loans."""
    if rule.algorithm in BUCKET_ALGORITHMS:
        rate, unit = reduced_rate(max(1, rule.limit), nominal_window_us(rule))
        return max(EPOCH_FLOOR_US, -(-3 * capacity(rule) * unit // rate))
    return nominal_window_us(rule)


def next_start_us(rule: LimitRule, at_us: int) -> int:
    """The beginning of the first window (or epoch) that begins after ``at_us``."""
    if rule.calendar == "month":
        return _next_month_us(rule, at_us)
    length_us = cycle_us(rule)
    anchor_us = (rule.anchor_us or (MONDAY_US if rule.calendar == "week" else 0)) % length_us
    if rule.calendar is None:
        anchor_us = 0
    return ((at_us - anchor_us) // length_us + 1) * length_us + anchor_us


def _next_month_us(rule: LimitRule, at_us: int) -> int:
    anchor = _EPOCH + rule.anchor_us * _MICROSECOND
    shift_us = (min(anchor.day, LAST_ANCHOR_DAY) - 1) * _DAY_US + rule.anchor_us % _DAY_US
    within = _EPOCH + (at_us - shift_us) * _MICROSECOND
    year, month = divmod(within.year * 12 + within.month, 12)
    return (datetime(year, month + 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND + shift_us
