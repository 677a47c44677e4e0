"""Queries on usage: they take a shipment, and read it by any of its dimensions, by the hour or the day."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    FromClause,
    RowMapping,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
    text,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.clients.repository import every_nth
from control_plane.database import chunks
from control_plane.errors import FieldError, InvalidError
from control_plane.limits.models import LimitRow
from control_plane.regions.models import RegionRow
from control_plane.usage.models import (
    LARGEST,
    WHOLE,
    UsageDay,
    UsageDayState,
    UsageHour,
    UsageRegion,
    UsageSource,
    UsageTotal,
)
from control_plane.usage.schemas import DIMENSIONS, Dimension, Step
from control_plane.web.pages import Page, is_text
from tidegate.contract.usage import OUTSIDE_PLANS, Shipment, UsageBatch

FIGURES = ("allowed", "denied", "shadow_denied", "cost", "denied_cost")
LINES_AT_A_TIME = 1_000
_ROWS_A_STATEMENT = 20_000
_Column = ColumnElement[Any] | InstrumentedAttribute[Any]
COLUMNS: dict[Dimension, str] = {
    "client": "client",
    "plan": "plan",
    "limit": "limit_name",
    "endpoint": "endpoint",
    "region": "region",
    "key": "key_id",
}
HOURS_BACK = 1
"""Full hours evaluated beside the current one, which may have just begun."""
_BEHIND_ALL = "\U0010ffff"


def member_of(dimension: Dimension) -> str:
    """What a dimension is called in a line of usage."""
    return "key_id" if dimension == "key" else dimension


class RowKey(NamedTuple):
    """The key of a row of ``usage_hourly`` within a region."""

    client: str
    hour: datetime
    plan: str
    limit_name: str
    endpoint: str
    key_id: str


class Figures(NamedTuple):
    """The figures to add to a row."""

    allowed: int
    denied: int
    shadow_denied: int
    cost: int
    denied_cost: int


class _Source(NamedTuple):
    """One run of one node."""

    node: str
    incarnation: str


async def take_new(session: AsyncSession, region: str, batches: Sequence[UsageBatch]) -> list[UsageBatch]:
    """Mark batches as taken. Returns those that are new: a node's batches come in order, by their numbers."""
    sources = sorted({_Source(batch.node, batch.incarnation) for batch in batches})
    if not sources:
        return []
    first = [{"region": region, "node": node, "incarnation": incarnation, "sequence": 0, "lost_batches": 0}
             for node, incarnation in sources]  # fmt: skip
    await session.execute(insert(UsageSource).on_conflict_do_nothing(), first)
    query = select(UsageSource).where(
        UsageSource.region == region, tuple_(UsageSource.node, UsageSource.incarnation).in_(sources)
    )
    query = query.order_by(UsageSource.node, UsageSource.incarnation).with_for_update()
    known = {_Source(row.node, row.incarnation): row for row in await session.scalars(query)}
    new = []
    for batch in sorted(batches, key=lambda batch: (batch.node, batch.incarnation, batch.sequence)):
        row = known[_Source(batch.node, batch.incarnation)]
        if batch.sequence <= row.sequence:
            continue
        row.lost_batches += batch.sequence - row.sequence - 1
        row.sequence = batch.sequence
        row.seen_at = func.now()
        new.append(batch)
    return new


async def add_hours(session: AsyncSession, region: str, rows: Mapping[RowKey, Figures]) -> None:
    """Add the figures of clients' hours."""
    await _add(session, "usage_hourly", RowKey._fields, region, rows)


async def add_totals(session: AsyncSession, region: str, totals: Mapping[RowKey, Figures]) -> None:
    """Add the figures of all clients together."""
    await _add(session, "usage_totals", ("hour", "plan", "limit_name", "endpoint"), region, totals)


async def _add(
    session: AsyncSession, table: str, names: Sequence[str], region: str, rows: Mapping[RowKey, Figures]
) -> None:
    columns = [*names, *FIGURES]
    types: dict[str, ARRAY[Any]] = {name: ARRAY(BigInteger) for name in FIGURES} | {name: ARRAY(Text) for name in names}
    types["hour"] = ARRAY(DateTime(timezone=True))
    sums = ", ".join(
        f"{name} = excluded.{name} + LEAST(GREATEST({table}.{name}, -{LARGEST} - LEAST(excluded.{name}, 0)), "
        f"{LARGEST} - GREATEST(excluded.{name}, 0))"
        for name in FIGURES
    )
    casts = {"hour": "timestamptz[]"} | dict.fromkeys(FIGURES, "bigint[]")
    arrays = ", ".join(f"CAST(:{name} AS {casts.get(name, 'text[]')})" for name in columns)
    key = ", ".join((*names, "region"))
    statement = text(
        f"INSERT INTO {table} (region, {', '.join(columns)}) "  # noqa: S608  names from this file
        f"SELECT CAST(:region AS text), * FROM unnest({arrays}) "
        f"ON CONFLICT ({key}) DO UPDATE SET {sums}"
    ).bindparams(*(bindparam(name, type_=types[name]) for name in columns))
    for part in chunks(list(rows.items()), _ROWS_A_STATEMENT):
        values: dict[str, object] = {name: [getattr(row, name) for row, _ in part] for name in names}
        values |= {name: [_bounded(getattr(figures, name)) for _, figures in part] for name in FIGURES}
        await session.execute(statement, values | {"region": region})


def _bounded(figure: int) -> int:
    return max(-LARGEST, min(figure, LARGEST))


async def note_region(session: AsyncSession, shipment: Shipment) -> None:
    """Record that the region shipped, and up to when its usage is complete; an earlier time changes nothing."""
    values: dict[str, object] = {"shipped_at": func.now()}
    if shipment.complete_until_ms is not None:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(shipment.complete_until_ms, 10**14))
        # a clock that is ahead would call times complete that have not come
        values["complete_until"] = func.least(at, func.now())
    statement = insert(UsageRegion).values(region=shipment.region, **values)
    if "complete_until" in values:
        # a slow shipment must not take back what a later one brought
        values["complete_until"] = func.greatest(UsageRegion.complete_until, values["complete_until"])
    await session.execute(statement.on_conflict_do_update(index_elements=["region"], set_=values))


async def mark_days(session: AsyncSession, hours: set[datetime]) -> None:
    """Mark the daily rows of these days as stale. This comes last, because every region writes these rows."""
    days = sorted({hour.date() for hour in hours})
    if days:
        statement = insert(UsageDayState).values([{"day": day, "stale": True} for day in days])
        await session.execute(statement.on_conflict_do_update(index_elements=["day"], set_={"stale": True}))


class UsageQuery(NamedTuple):
    """A query: ``since`` and ``until`` (not included) are whole hours; ``only`` filters by dimension."""

    group_by: tuple[Dimension, ...]
    step: Step
    since: datetime
    until: datetime
    only: dict[Dimension, str]

    @property
    def names(self) -> list[str]:
        """The columns that lines are grouped by, in their order."""
        return [*(["at"] if self.step != "none" else []), *(COLUMNS[dimension] for dimension in self.group_by)]

    @property
    def asks_clients(self) -> bool:
        """Whether it asks for a client or a key, which the totals of all clients do not tell."""
        return not {*self.group_by, *self.only}.isdisjoint({"client", "key"})


async def complete_until(session: AsyncSession) -> dict[str, datetime | None]:
    """By region, the instant up to which all usage has arrived; ``None`` where none ever did.

    Deleted regions are left out: of them nothing more will arrive.
    """
    query = select(RegionRow.region, UsageRegion.complete_until).order_by(RegionRow.region)
    rows = await session.execute(query.outerjoin(UsageRegion, UsageRegion.region == RegionRow.region))
    return {region: until for region, until in rows}  # noqa: C416  rows are no pairs to a type checker


async def lines(session: AsyncSession, query: UsageQuery, page: Page) -> Sequence[RowMapping]:
    """The lines after the cursor in the order of time and then of dimensions, one more than asked if there is more."""
    statement = _lines(query, page.after).limit(page.limit + 1)
    return [row for row in (await session.execute(statement)).mappings() if row["allowed"] is not None]


async def all_lines(session: AsyncSession, query: UsageQuery) -> AsyncIterator[Sequence[RowMapping]]:
    """All lines in the same order, in parts that bound memory."""
    result = await session.stream(_lines(query, None).execution_options(yield_per=LINES_AT_A_TIME))
    async for rows in result.mappings().partitions():
        yield [row for row in rows if row["allowed"] is not None]


def _lines(query: UsageQuery, after: str | None) -> Select[Any]:
    source = _source(query)
    names = query.names
    columns = [source.c[name] for name in names]
    statement = select(*columns, *(bounded_sum(source.c[name]).label(name) for name in FIGURES)).select_from(source)
    if not columns:
        return statement
    statement = statement.group_by(*columns).order_by(*columns)
    if after is None:
        return statement
    values = _read_cursor(after, names, query.step)
    return statement.where(tuple_(*columns) > tuple_(*(literal(one) for one in values)))


def bounded_sum(figures: _Column) -> ColumnElement[int]:
    """The sum, which stays at ``LARGEST`` once it is there."""
    total = func.sum(figures)
    most: ColumnElement[int] = literal_column(str(LARGEST))
    least: ColumnElement[int] = literal_column(f"(-{LARGEST})")
    return cast(case((total > most, most), (total < least, least), else_=total), BigInteger)


def cursor_of(row: RowMapping, query: UsageQuery) -> str:
    """Where the next page begins."""
    return json.dumps([row[name].isoformat() if name == "at" else row[name] for name in query.names])


def _read_cursor(text: str, names: Sequence[str], step: Step) -> list[Any]:
    try:
        values = json.loads(text)
        if not isinstance(values, list) or len(values) != len(names):
            raise ValueError
        if not all(is_text(value) for value in values):
            raise ValueError
        if names[:1] == ["at"]:
            values[0] = date.fromisoformat(values[0]) if step == "day" else datetime.fromisoformat(values[0])
            if step == "hour" and values[0].tzinfo is None:
                raise ValueError
            values[0] = values[0].astimezone(UTC) if step == "hour" else values[0]
    except (ValueError, OverflowError, RecursionError):
        raise InvalidError([FieldError("cursor", "is not a cursor that this list gave out")]) from None
    return values


def _source(query: UsageQuery) -> FromClause:
    """The rows to add up: totals of all clients if the query needs no client and no key, else the clients' rows."""
    of_limits = "limit" in {*query.group_by, *query.only}
    table = UsageHour if query.asks_clients else UsageTotal
    at: _Column = table.hour if query.step == "hour" else _day_of(table.hour)
    hours = _rows(table, at, query, of_limits=of_limits)
    within = hours.where(table.hour >= query.since, table.hour < query.until)
    if query.step == "hour" or not query.asks_clients:
        return within.subquery()
    # days that are rolled up come from their own rows: their hours may be gone
    rolled_up = select(UsageDayState.day).where(~UsageDayState.stale)
    first = first_whole_day(query.since)
    days = _rows(UsageDay, UsageDay.day, query, of_limits=of_limits).where(
        UsageDay.day >= first, UsageDay.day < query.until.date(), UsageDay.day.in_(rolled_up)
    )
    in_days = _day_of(UsageHour.hour)
    rest = within.where(~((in_days >= first) & (in_days < query.until.date()) & in_days.in_(rolled_up)))
    return union_all(days, rest).subquery()


def _rows(
    table: type[UsageHour | UsageDay | UsageTotal], at: _Column, query: UsageQuery, *, of_limits: bool
) -> Select[Any]:
    names = [COLUMNS[dimension] for dimension in DIMENSIONS if hasattr(table, COLUMNS[dimension])]
    columns = [getattr(table, name) for name in names]
    statement = select(at.label("at"), *columns, *(getattr(table, name) for name in FIGURES))
    statement = statement.where(table.limit_name != WHOLE if of_limits else table.limit_name == WHOLE)
    for dimension, value in query.only.items():
        statement = statement.where(getattr(table, COLUMNS[dimension]) == value)
    return statement


def _day_of(hour: _Column) -> ColumnElement[date]:
    return cast(func.timezone(literal_column("'UTC'"), hour), Date)


def first_whole_day(since: datetime) -> date:
    """The first whole day (UTC) after ``since``."""
    at = since.astimezone(UTC)
    return at.date() if at == at.replace(hour=0, minute=0, second=0, microsecond=0) else at.date() + timedelta(days=1)


async def busiest(session: AsyncSession, since: datetime, by: str, count: int) -> Sequence[RowMapping]:
    """The clients that did most since ``since``, most first."""
    sums = {name: bounded_sum(getattr(UsageHour, name)).label(name) for name in FIGURES}
    statement = select(UsageHour.client, *sums.values())
    statement = statement.where(UsageHour.hour >= since, UsageHour.limit_name == WHOLE)
    statement = statement.group_by(UsageHour.client).order_by(sums[by].desc(), UsageHour.client).limit(count)
    return (await session.execute(statement)).mappings().all()


async def demand(session: AsyncSession) -> dict[int, dict[str, float]]:
    """Units asked for (admitted and denied) in this hour and the last, by rule id and region."""
    since = func.date_trunc("hour", func.now()) - text(f"interval '{HOURS_BACK} hours'")
    query = (
        select(LimitRow.rule_id, UsageTotal.region, func.sum(UsageTotal.cost + UsageTotal.denied_cost))
        .join(
            UsageTotal,
            (UsageTotal.plan == func.coalesce(LimitRow.plan, OUTSIDE_PLANS)) & (UsageTotal.limit_name == LimitRow.name),
        )
        .where(LimitRow.auto_shares, UsageTotal.hour >= since, UsageTotal.limit_name != WHOLE)
        .group_by(LimitRow.rule_id, UsageTotal.region)
    )
    found: dict[int, dict[str, float]] = {}
    for rule_id, region, units in await session.execute(query):
        found.setdefault(rule_id, {})[region] = float(units)
    return found


async def notify(session: AsyncSession, channel: str, payloads: Sequence[str]) -> None:
    """Send notifications to every replica, by one statement."""
    await session.execute(select(func.pg_notify(channel, func.unnest(cast(payloads, ARRAY(Text))))))


class ClientRange(NamedTuple):
    """Names from ``first`` up to and not including ``after``."""

    first: str
    after: str


async def client_ranges(session: AsyncSession, clients: int) -> list[ClientRange]:
    """Ranges of all names with that many clients each, for queries that take too long at once.

    Anonymous usage (the empty name) and removed clients are in them too.
    """
    bounds = ["", *await every_nth(session, clients), _BEHIND_ALL]
    return [ClientRange(first, after) for first, after in pairwise(bounds)]
