"""Clients near their limits, from what was shipped: the same figures for the API and for webhooks."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Double, Subquery, case, func, or_, select, union_all
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.asyncio import AsyncSession

from contract.limits import LimitRule
from control_plane.clients.models import ClientRow, OverrideRow
from control_plane.limits.rules import to_rule
from control_plane.plans.models import PlanRow
from control_plane.usage import reading, windows
from control_plane.usage.models import UsageDay, UsageDayState, UsageHour

MAX_CLIENTS = 1_000


class Near(NamedTuple):
    """A client that used ``used`` of ``of`` units in the window from ``start``."""

    client: str
    plan: str
    limit: str
    used: int
    of: int
    start: datetime


class Skipped(NamedTuple):
    """A limit that hourly usage cannot tell of."""

    limit: str
    reason: str


def fit_limits(plan: PlanRow) -> tuple[list[LimitRule], list[Skipped]]:
    """The limits of a plan that hourly usage can tell of, and the others."""
    fit, skipped = [], []
    for row in plan.limits:
        rule = to_rule(row, ())
        reason = windows.unfit(rule)
        if reason is None:
            fit.append(rule)
        else:
            skipped.append(Skipped(rule.name, reason))
    return fit, skipped


async def near(
    session: AsyncSession,
    plan: str,
    rules: Iterable[LimitRule],
    threshold: float,
    now: datetime,
    most: int = MAX_CLIENTS,
) -> Sequence[Near]:
    """Clients of ``plan`` that used at least ``threshold`` of one of ``rules`` (0.8: four fifths), nearest first.

    A client's override in force takes the place of the limit.
    """
    found: list[Near] = []
    for rule in rules:
        found += await _near_one(session, plan, rule, threshold, now, most)
    found.sort(key=lambda one: one.used / one.of, reverse=True)
    return found[:most]


async def _near_one(
    session: AsyncSession, plan: str, rule: LimitRule, threshold: float, now: datetime, most: int
) -> Sequence[Near]:
    window = windows.current(rule, now)
    usage = await _usage_since(session, plan, rule.name, window.start, now)
    used = sql_cast(func.sum(usage.c.cost), UsageHour.cost.type)
    in_force = or_(OverrideRow.expires_at.is_(None), OverrideRow.expires_at > now)
    own = case((in_force, OverrideRow.limit), else_=OverrideRow.then_limit)
    limit = func.coalesce(func.max(own), sql_cast(rule.limit, UsageHour.cost.type))
    share = sql_cast(used, Double) / func.nullif(limit, 0)
    statement = (
        select(usage.c.client, used, limit)
        .join(ClientRow, (ClientRow.client == usage.c.client) & (ClientRow.plan == plan))
        .outerjoin(OverrideRow, (OverrideRow.client == usage.c.client) & (OverrideRow.limit_name == rule.name))
        .group_by(usage.c.client)
        .having(limit > 0, share >= threshold)
        .order_by(share.desc())
        .limit(most)
    )
    rows = await session.execute(statement)
    return [Near(client, plan, rule.name, taken, of, window.start) for client, taken, of in rows]


async def _usage_since(session: AsyncSession, plan: str, limit: str, since: datetime, now: datetime) -> Subquery:
    """``client`` and ``cost`` of a limit: by the day where days are rolled up, for a month of hours is 30 times as
    many rows, and by the hour for the rest.
    """
    first = reading.first_whole_day(since)
    query = select(UsageDayState.day).where(
        ~UsageDayState.stale, UsageDayState.day >= first, UsageDayState.day < now.astimezone(UTC).date()
    )
    days = (await session.scalars(query.order_by(UsageDayState.day))).all()
    by_hour = select(UsageHour.client, UsageHour.cost).where(
        UsageHour.plan == plan, UsageHour.limit_name == limit, or_(*_hours_around(days, since))
    )
    if not days:
        return by_hour.subquery()
    by_day = select(UsageDay.client, UsageDay.cost).where(
        UsageDay.plan == plan, UsageDay.limit_name == limit, UsageDay.day.in_(days)
    )
    return union_all(by_hour, by_day).subquery()


def _hours_around(days: Sequence[date], since: datetime) -> Iterator[ColumnElement[bool]]:
    """Conditions on the hours from ``since`` on that are in none of ``days``, in order: ranges, which leave whole
    partitions alone.
    """
    begin = since
    for day in days:
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if begin < midnight:
            yield (UsageHour.hour >= begin) & (UsageHour.hour < midnight)
        begin = midnight + timedelta(days=1)
    yield UsageHour.hour >= begin
