"""Windows of limits on hourly usage: when the current one began, and whether hours can show it. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from control_plane.limits.models import PlanRow
from control_plane.limits.service import to_rule
from control_plane.usage.schemas import SkippedLimit
from tidegate.contract.calendar import grid_of, id_at, start_us
from tidegate.contract.limits import LimitRule, dimensions

HOUR_US = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Window(NamedTuple):
    """From ``start`` (a whole hour) to ``end``."""

    start: datetime
    end: datetime


def unknowable(rule: LimitRule) -> str | None:
    """Why usage by client and endpoint does not show what this limit counts, or ``None`` when it does."""
    if dimensions(rule.scope) != ("client",):
        return f"it counts by {rule.scope}, and usage is kept by client"
    if rule.match.methods or rule.match.attributes:
        return "it applies to some methods or attributes, and usage is kept by endpoint"
    return None


def unfit(rule: LimitRule) -> str | None:
    """Why hourly usage by client cannot show how near a client is to this limit, or ``None`` if it can."""
    reason = unknowable(rule)
    if reason is not None:
        return reason
    if rule.limit == 0:
        return "it allows nothing"
    if rule.calendar == "minute" or (rule.window_us is not None and rule.window_us < HOUR_US):
        return "its window is shorter than an hour, and usage is kept by the hour"
    return None


def fit_limits(
    plan: PlanRow, fault: Callable[[LimitRule], str | None] = unfit
) -> tuple[list[LimitRule], list[SkippedLimit]]:
    """The limits of a plan that hourly usage can evaluate, and the others with their ``fault``."""
    fit, skipped = [], []
    for row in plan.limits:
        rule = to_rule(row, ())
        reason = fault(rule)
        if reason is None:
            fit.append(rule)
        else:
            skipped.append(SkippedLimit(limit=rule.name, reason=reason))
    return fit, skipped


def current(rule: LimitRule, now: datetime) -> Window:
    """The window that ``now`` is in; of a sliding window or a bucket, the one that ends now.

    Hours are whole: a window that begins within one takes all of it.
    """
    if rule.algorithm == "fixed_window":
        grid = grid_of(rule)
        id = id_at(grid, _us(now))
        return Window(whole_hour(_at(start_us(grid, id))), _whole_after(rule, _at(start_us(grid, id + 1))))
    length = timedelta(microseconds=rule.window_us or HOUR_US)
    return Window(whole_hour(now - length) + (timedelta(hours=1) if length > timedelta(hours=1) else timedelta()), now)


def counted(rule: LimitRule, now: datetime) -> list[tuple[Window, float]]:
    """What counts towards ``rule`` at ``now``, by weight: of its first hour a sliding window counts a part."""
    if rule.algorithm == "fixed_window":
        return [(current(rule, now), 1.0)]
    start = now - timedelta(microseconds=rule.window_us or HOUR_US)
    first = whole_hour(start) + timedelta(hours=1)
    return [(Window(first, now), 1.0), (Window(whole_hour(start), first), (first - start) / timedelta(hours=1))]


def is_over(rule: LimitRule, at: datetime, now: datetime) -> bool:
    """Whether the window of ``at`` has ended by ``now``, with a whole hour: else its last hour belongs to two."""
    end = current(rule, at).end
    return rule.algorithm == "fixed_window" and end <= now and end == whole_hour(end)


def period_start(rule: LimitRule, now: datetime) -> datetime:
    """When the window of ``now`` began, by which alerts know it; a sliding one goes by the aligned window."""
    if rule.calendar is not None:
        return current(rule, now).start
    return now - (now - _EPOCH) % timedelta(microseconds=rule.window_us or HOUR_US)


def _us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _at(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _whole_after(rule: LimitRule, end: datetime) -> datetime:
    return whole_hour(end) if rule.calendar == "month" else end


def whole_hour(at: datetime) -> datetime:
    """When the hour of ``at`` began."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
