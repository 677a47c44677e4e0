"""Queries for clients near their limits, by shipped usage: the same figures for the API and for webhooks."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Double,
    Label,
    Select,
    Subquery,
    case,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.clients.models import ClientRow, OverrideRow
from control_plane.usage import repository as reading
from control_plane.usage import windows
from control_plane.usage.models import UsageDay, UsageDayState, UsageHour
from control_plane.usage.repository import ClientRange, client_ranges
from control_plane.usage.windows import Window
from tidegate.contract.limits import LimitRule

MAX_CLIENTS = 1_000
CLIENTS_A_CHUNK = 20_000
"""Clients a query: a month of that many stays far below the timeout of a command."""


class Near(NamedTuple):
    """A client that used ``used`` of ``of`` units in the window from ``window_start``."""

    client: str
    plan: str
    limit: str
    used: int
    of: int
    window_start: datetime

    @property
    def share(self) -> float:
        """The used part of the limit."""
        return self.used / self.of


async def near(
    session: AsyncSession,
    plan: str,
    rules: Iterable[LimitRule],
    threshold: float,
    at: datetime,
    most: int = MAX_CLIENTS,
) -> Sequence[Near]:
    """Clients of ``plan`` that used at least ``threshold`` of one of ``rules`` (0.8: four fifths), nearest first.

    The windows are those of ``at``; a client's override that was in force then takes the place of the limit.
    """
    found: list[Near] = []
    ranges = await client_ranges(session, CLIENTS_A_CHUNK)
    for rule in rules:
        start = windows.current(rule, at).start
        parts = [
            await _usage_in(session, plan, rule.name, window, weight) for window, weight in windows.counted(rule, at)
        ]
        usage = union_all(*parts).subquery()
        for clients in ranges:
            rows = await session.execute(_nearest(usage, clients, plan, rule, threshold, at, most))
            found += [Near(client, plan, rule.name, taken, of, start) for client, taken, of in rows]
    found.sort(key=lambda one: one.share, reverse=True)
    return found[:most]


def _nearest(
    usage: Subquery, clients: ClientRange, plan: str, rule: LimitRule, threshold: float, at: datetime, most: int
) -> Select[Any]:
    # added up before anything is joined: days of many clients are millions of rows
    by_client = select(usage.c.client, reading.bounded_sum(usage.c.cost).label("used"))
    within = by_client.where(usage.c.client >= clients.first, usage.c.client < clients.after)
    total = within.group_by(usage.c.client).subquery()
    in_force = or_(OverrideRow.expires_at.is_(None), OverrideRow.expires_at > at)
    own = case((in_force, OverrideRow.limit), else_=OverrideRow.then_limit)
    limit = func.coalesce(own, sql_cast(rule.limit, UsageHour.cost.type))
    share = sql_cast(total.c.used, Double) / func.nullif(limit, 0)
    return (
        select(total.c.client, total.c.used, limit)
        .join(ClientRow, (ClientRow.client == total.c.client) & (ClientRow.plan == plan))
        .outerjoin(OverrideRow, (OverrideRow.client == total.c.client) & (OverrideRow.limit_name == rule.name))
        .where(limit > 0, share >= threshold)
        .order_by(share.desc())
        .limit(most)
    )


async def _usage_in(
    session: AsyncSession, plan: str, limit: str, window: Window, weight: float
) -> Select[Any] | CompoundSelect[Any]:
    """``client`` and ``cost`` of a limit: by the day where days are rolled up, for they are fewer, else by the hour."""
    first = reading.first_whole_day(window.start)
    query = select(UsageDayState.day).where(
        ~UsageDayState.stale, UsageDayState.day >= first, UsageDayState.day < window.end.astimezone(UTC).date()
    )
    days = (await session.scalars(query.order_by(UsageDayState.day))).all()
    by_hour = select(UsageHour.client, _weighed(UsageHour.cost, weight)).where(
        UsageHour.plan == plan, UsageHour.limit_name == limit, or_(*_hours_around(days, window))
    )
    if not days:
        return by_hour
    by_day = select(UsageDay.client, _weighed(UsageDay.cost, weight)).where(
        UsageDay.plan == plan, UsageDay.limit_name == limit, UsageDay.day.in_(days)
    )
    return union_all(by_hour, by_day)


def _weighed(cost: InstrumentedAttribute[int], weight: float) -> Label[Any]:
    return (cost if weight == 1 else cost * weight).label("cost")


def _hours_around(days: Sequence[date], window: Window) -> Iterator[ColumnElement[bool]]:
    """Conditions on the hours of a window that are in none of ``days``, in order: ranges, which leave whole
    partitions alone.
    """
    begin = window.start
    for day in days:
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if begin < midnight:
            yield (UsageHour.hour >= begin) & (UsageHour.hour < midnight)
        begin = midnight + timedelta(days=1)
    yield (UsageHour.hour >= begin) & (UsageHour.hour < window.end)
