"""What nodes counted is taken: a shipment's batches become rows by the hour.

A shipment's rows and the names of its batches are stored in one transaction, so that each batch counts once. From bytes
to rows it is arithmetic, in a thread of its own.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from control_plane.clients.repository import note_keys_used
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.usage import repository
from control_plane.usage.models import WHOLE
from control_plane.usage.partitions import Partitions
from control_plane.usage.repository import Figures, RowKey
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


class _ReadShipment(NamedTuple):
    """Valid batches by position, and batches to refuse."""

    batches: Sequence[UsageBatch]
    refused: Sequence[RefusedBatch]


async def take(database: Database, partitions: Partitions, shipment: Shipment, now: datetime) -> ShipmentAnswer:
    """Take the shipment's new batches; they are committed when this returns."""
    # after an outage shipments are large: streams and admins must not wait for the arithmetic
    readable = await asyncio.to_thread(_read, shipment.batches, now)
    if readable.batches:
        await partitions.ensure({_hour_of(batch).date() for batch in readable.batches})
    async with database.transaction() as session:
        new = await repository.take_new(session, shipment.region, readable.batches)
        rows, totals = await asyncio.to_thread(_sums, new)
        await repository.add_hours(session, shipment.region, rows)
        await repository.add_totals(session, shipment.region, totals)
        await repository.note_region(session, shipment)
        await repository.mark_days(session, {key.hour for key in rows})
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
    cells = ((batch, _hour_of(batch), cell) for batch in batches for cell in batch.cells)
    return _summed(row for cell in cells for row in _rows_of_cell(*cell))


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
    return _summed((key._replace(client="", key_id=""), figures) for key, figures in rows.items())


def _summed(rows: Iterable[tuple[RowKey, Figures]]) -> dict[RowKey, Figures]:
    sums: defaultdict[RowKey, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for key, figures in rows:
        total = sums[key]
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


async def _note_keys(database: Database, used: Mapping[str, datetime]) -> None:
    """Note when keys were last used, in a separate transaction, as regions share keys and would block each other."""
    try:
        async with database.transaction() as session:
            await note_keys_used(session, used)
    except UnavailableError:
        return  # the usage is taken; the next shipment brings it again
