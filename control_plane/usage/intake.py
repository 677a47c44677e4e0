"""Takes a shipment: its rows and the names of its batches, in one transaction, so that each batch counts once.

From bytes to rows it is arithmetic, in a thread of its own; then the rows are added.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, DateTime, Text, bindparam, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients.repository import note_keys_used
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.usage.models import LARGEST, WHOLE, UsageDayState, UsageRegion, UsageSource
from control_plane.usage.partitions import Partitions
from tidegate.contract.usage import (
    OUTSIDE_PLANS,
    RefusedBatch,
    Shipment,
    ShipmentAnswer,
    UnreadableBatchError,
    UsageBatch,
    UsageCell,
    unpack,
)

OLDEST = timedelta(days=30)
"""Older usage is refused: no stream holds it, and its partition may be gone (from 32 days on)."""
NEWEST = timedelta(hours=1)
"""How far a node's clock may be ahead."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIGURES = ("allowed", "denied", "shadow_denied", "cost", "denied_cost")
_ROWS_A_STATEMENT = 20_000
"""Rows a statement."""


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


class _ReadShipment(NamedTuple):
    """Valid batches by position, and batches to refuse."""

    batches: Sequence[UsageBatch]
    refused: Sequence[RefusedBatch]


class _Source(NamedTuple):
    """One run of one node."""

    node: str
    incarnation: str


async def take(database: Database, partitions: Partitions, shipment: Shipment, now: datetime) -> ShipmentAnswer:
    """Take the shipment's new batches; they are committed when this returns."""
    # after an outage shipments are large: streams and admins must not wait for the arithmetic
    readable = await asyncio.to_thread(_read, shipment.batches, now)
    if readable.batches:
        await partitions.ensure({_hour_of(batch).date() for batch in readable.batches})
    async with database.transaction() as session:
        new = await _new_ones(session, shipment.region, readable.batches)
        rows, totals = await asyncio.to_thread(_sums, new)
        await _add(session, "usage_hourly", shipment.region, rows)
        await _add(session, "usage_totals", shipment.region, totals)
        await _note_region(session, shipment)
        await _mark_days(session, {key.hour for key in rows})
    await _note_keys(database, _keys_used(new))
    known = len(readable.batches) - len(new)
    return ShipmentAnswer(taken=len(new), known=known, refused=tuple(readable.refused))


def _sums(batches: Sequence[UsageBatch]) -> tuple[Mapping[RowKey, Figures], Mapping[RowKey, Figures]]:
    rows = rows_of(batches)
    return rows, totals_of(rows)


def _read(packed: Sequence[bytes], now: datetime) -> _ReadShipment:
    """Unpack and check what a region sent."""
    batches: list[UsageBatch] = []
    refused: list[RefusedBatch] = []
    for position, one in enumerate(packed):
        try:
            batch = unpack(one)
        except UnreadableBatchError as error:
            refused.append(RefusedBatch(position, str(error)[:500]))
            continue
        if now - OLDEST <= _hour_of(batch) <= now + NEWEST:
            batches.append(batch)
        else:
            refused.append(RefusedBatch(position, f"counts the hour {_hour_of(batch):%Y-%m-%dT%H}Z"))
    return _ReadShipment(batches, refused)


def _hour_of(batch: UsageBatch) -> datetime:
    """When the batch's hour began."""
    return _EPOCH + timedelta(hours=min(batch.hour, 10_000_000))


def rows_of(batches: Iterable[UsageBatch]) -> dict[RowKey, Figures]:
    """The figures that batches add, in the order of the rows' keys, so that two writers never deadlock."""
    sums: defaultdict[RowKey, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for batch in batches:
        hour = _hour_of(batch)
        for cell in batch.cells:
            for key, figures in _rows_of_cell(batch, hour, cell):
                total = sums[key]
                for at, figure in enumerate(figures):
                    total[at] += figure
    return {key: Figures(*sums[key]) for key in sorted(sums)}


def _rows_of_cell(batch: UsageBatch, hour: datetime, cell: UsageCell) -> Iterator[tuple[RowKey, Figures]]:
    place = batch.places[cell.place]
    denied = [denials for denials in cell.denials if denials.stopped]
    shadow = sum(denials.requests for denials in cell.denials if denials.shadow)
    yield (
        RowKey(cell.client, hour, place.plan, WHOLE, place.endpoint, cell.key_id),
        Figures(cell.allowed, sum(one.requests for one in denied), shadow, cell.cost, sum(one.cost for one in denied)),
    )
    # the site of an IPv6 address is a second limit of the same name: a request counts once under a name
    positions: dict[tuple[str, str], list[int]] = {}
    for at, name in enumerate(place.limits):
        positions.setdefault((name.plan or OUTSIDE_PLANS, name.limit), []).append(at)
    for (plan, limit), places in positions.items():
        of_limit = [one for one in denied if any(at in one.denied for at in places)]
        shadow = sum(one.requests for one in cell.denials if any(at in one.shadow for at in places))
        yield (
            RowKey(cell.client, hour, plan, limit, place.endpoint, ""),
            Figures(
                cell.allowed,
                sum(one.requests for one in of_limit),
                shadow,
                cell.cost,
                sum(one.cost for one in of_limit),
            ),
        )


def totals_of(rows: dict[RowKey, Figures]) -> dict[RowKey, Figures]:
    """The same without clients and keys, in order."""
    sums: defaultdict[RowKey, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for key, figures in rows.items():
        total = sums[key._replace(client="", key_id="")]
        for at, figure in enumerate(figures):
            total[at] += figure
    return {key: Figures(*sums[key]) for key in sorted(sums)}


def _keys_used(batches: Iterable[UsageBatch]) -> dict[str, datetime]:
    """When each key was last seen, as far as the batches know."""
    latest: dict[str, datetime] = {}
    for batch in batches:
        at = _EPOCH + timedelta(milliseconds=min(batch.until_ms, 10**14))
        for cell in batch.cells:
            if cell.key_id and latest.get(cell.key_id, _EPOCH) < at:
                latest[cell.key_id] = at
    return latest


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
        at = _EPOCH + timedelta(milliseconds=min(shipment.complete_until_ms, 10**14))
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
