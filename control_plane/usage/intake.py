"""Takes a shipment: its rows and the names of its batches, in one transaction, so that each batch counts once."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, DateTime, Text, bindparam, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients.repository import note_keys_used
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.usage import shipments as ingest
from control_plane.usage.models import LARGEST, UsageDayState, UsageRegion, UsageSource
from control_plane.usage.partitions import Partitions
from control_plane.usage.shipments import Figures, RowKey
from tidegate.contract.usage import Shipment, ShipmentAnswer, UsageBatch

_FIGURES = ("allowed", "denied", "shadow_denied", "cost", "denied_cost")
_ROWS_A_STATEMENT = 20_000
"""Rows a statement."""


class _Source(NamedTuple):
    """One run of one node."""

    node: str
    incarnation: str


async def take(database: Database, partitions: Partitions, shipment: Shipment, now: datetime) -> ShipmentAnswer:
    """Take the shipment's new batches; they are committed when this returns."""
    # after an outage shipments are large: streams and admins must not wait for the arithmetic
    readable = await asyncio.to_thread(ingest.read, shipment.batches, now)
    if readable.batches:
        await partitions.ensure({ingest.hour_of(batch).date() for batch in readable.batches})
    async with database.transaction() as session:
        new = await _new_ones(session, shipment.region, readable.batches)
        rows, totals = await asyncio.to_thread(_sums, new)
        await _add(session, "usage_hourly", shipment.region, rows)
        await _add(session, "usage_totals", shipment.region, totals)
        await _note_region(session, shipment)
        await _mark_days(session, {key.hour for key in rows})
    await _note_keys(database, ingest.keys_used(new))
    known = len(readable.batches) - len(new)
    return ShipmentAnswer(taken=len(new), known=known, refused=tuple(readable.refused))


def _sums(batches: Sequence[UsageBatch]) -> tuple[Mapping[RowKey, Figures], Mapping[RowKey, Figures]]:
    rows = ingest.rows_of(batches)
    return rows, ingest.totals_of(rows)


async def _new_ones(session: AsyncSession, region: str, batches: Sequence[UsageBatch]) -> list[UsageBatch]:
    """The batches not taken before. A node's batches come in order, so the last one taken tells."""
    sources = sorted({_Source(batch.node, batch.incarnation) for batch in batches})
    if not sources:
        return []
    first = [{"region": region, "node": node, "incarnation": life, "sequence": 0, "lost_batches": 0}
             for node, life in sources]  # fmt: skip
    await session.execute(insert(UsageSource).on_conflict_do_nothing(), first)
    query = select(UsageSource).where(
        UsageSource.region == region, tuple_(UsageSource.node, UsageSource.incarnation).in_(sources)
    )
    query = query.order_by(UsageSource.node, UsageSource.incarnation).with_for_update()
    known = {_Source(row.node, row.incarnation): row for row in await session.scalars(query)}
    new = []
    for batch in sorted(batches, key=lambda one: (one.node, one.incarnation, one.sequence)):
        row = known[_Source(batch.node, batch.incarnation)]
        if batch.sequence <= row.sequence:
            continue
        row.lost_batches += batch.sequence - row.sequence - 1
        row.sequence = batch.sequence
        row.seen_at = func.now()
        new.append(batch)
    return new


async def _add(session: AsyncSession, table: str, region: str, rows: Mapping[RowKey, Figures]) -> None:
    names = RowKey._fields if table == "usage_hourly" else ("hour", "plan", "limit_name", "endpoint")
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


async def _note_keys(database: Database, used: Mapping[str, datetime]) -> None:
    """Note when keys were last used, in a separate transaction, as regions share keys and would block each other."""
    try:
        async with database.transaction() as session:
            await note_keys_used(session, used)
    except UnavailableError:
        return  # the usage is taken; the next shipment says it again


async def _note_region(session: AsyncSession, shipment: Shipment) -> None:
    values: dict[str, object] = {"shipped_at": func.now()}
    if shipment.complete_until_ms is not None:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(shipment.complete_until_ms, 10**14))
        # what a clock that is ahead says would stand until that time has come
        values["complete_until"] = func.least(at, func.now())
    statement = insert(UsageRegion).values(region=shipment.region, **values)
    if "complete_until" in values:
        # a shipper that was slow must not take back what another one said
        values["complete_until"] = func.greatest(UsageRegion.complete_until, values["complete_until"])
    await session.execute(statement.on_conflict_do_update(index_elements=["region"], set_=values))


async def _mark_days(session: AsyncSession, hours: set[datetime]) -> None:
    """Mark the daily rows of these days as stale. This comes last, because every region writes these rows."""
    days = sorted({hour.date() for hour in hours})
    if days:
        statement = insert(UsageDayState).values([{"day": day, "stale": True} for day in days])
        await session.execute(statement.on_conflict_do_update(index_elements=["day"], set_={"stale": True}))
