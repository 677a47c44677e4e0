"""Queries that take a shipment: new batches, sums of rows, how far a region is complete, stale days."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, DateTime, Text, bindparam, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.usage.models import LARGEST, UsageDayState, UsageRegion, UsageSource
from tidegate.contract.usage import Shipment, UsageBatch

_ROWS_A_STATEMENT = 20_000


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


_FIGURES = Figures._fields


class _Source(NamedTuple):
    """One run of one node."""

    node: str
    incarnation: str


async def take_new(session: AsyncSession, region: str, batches: Sequence[UsageBatch]) -> list[UsageBatch]:
    """Mark batches as taken. Returns those that are new: a node's batches come in order, so its last one tells."""
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
    columns = [*names, *_FIGURES]
    types: dict[str, ARRAY[Any]] = {name: ARRAY(BigInteger) for name in _FIGURES} | {
        name: ARRAY(Text) for name in names
    }
    types["hour"] = ARRAY(DateTime(timezone=True))
    sums = ", ".join(
        f"{name} = excluded.{name} + LEAST(GREATEST({table}.{name}, -{LARGEST} - LEAST(excluded.{name}, 0)), "
        f"{LARGEST} - GREATEST(excluded.{name}, 0))"
        for name in _FIGURES
    )
    casts = {"hour": "timestamptz[]"} | dict.fromkeys(_FIGURES, "bigint[]")
    arrays = ", ".join(f"CAST(:{name} AS {casts.get(name, 'text[]')})" for name in columns)
    key = ", ".join((*names, "region"))
    statement = text(
        f"INSERT INTO {table} (region, {', '.join(columns)}) "  # noqa: S608  names from this file
        f"SELECT CAST(:region AS text), * FROM unnest({arrays}) "
        f"ON CONFLICT ({key}) DO UPDATE SET {sums}"
    ).bindparams(*(bindparam(name, type_=types[name]) for name in columns))
    items = list(rows.items())
    for start in range(0, len(items), _ROWS_A_STATEMENT):
        part = items[start : start + _ROWS_A_STATEMENT]
        values: dict[str, object] = {name: [getattr(row, name) for row, _ in part] for name in names}
        values |= {name: [_bounded(getattr(figures, name)) for _, figures in part] for name in _FIGURES}
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
        # a slow shipment must not take back what a later one said
        values["complete_until"] = func.greatest(UsageRegion.complete_until, values["complete_until"])
    await session.execute(statement.on_conflict_do_update(index_elements=["region"], set_=values))


async def mark_days(session: AsyncSession, hours: set[datetime]) -> None:
    """Mark the daily rows of these days as stale. This comes last, because every region writes these rows."""
    days = sorted({hour.date() for hour in hours})
    if days:
        statement = insert(UsageDayState).values([{"day": day, "stale": True} for day in days])
        await session.execute(statement.on_conflict_do_update(index_elements=["day"], set_={"stale": True}))
