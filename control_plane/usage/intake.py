"""Takes a shipment: its rows and the names of its batches, in one transaction, so that each batch counts once."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from control_plane.clients.repository import note_keys_used
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.usage import intake_repository as repository
from control_plane.usage import shipments as ingest
from control_plane.usage.partitions import Partitions
from control_plane.usage.shipments import Figures, RowKey
from tidegate.contract.usage import Shipment, ShipmentAnswer, UsageBatch


async def take(database: Database, partitions: Partitions, shipment: Shipment, now: datetime) -> ShipmentAnswer:
    """Take the shipment's new batches; they are committed when this returns."""
    # after an outage shipments are large: streams and admins must not wait for the arithmetic
    readable = await asyncio.to_thread(ingest.read, shipment.batches, now)
    if readable.batches:
        await partitions.ensure({ingest.hour_of(batch).date() for batch in readable.batches})
    async with database.transaction() as session:
        new = await repository.take_new(session, shipment.region, readable.batches)
        rows, totals = await asyncio.to_thread(_sums, new)
        await repository.add_hours(session, shipment.region, rows)
        await repository.add_totals(session, shipment.region, totals)
        await repository.note_region(session, shipment)
        await repository.mark_days(session, {key.hour for key in rows})
    await _note_keys(database, ingest.keys_used(new))
    known = len(readable.batches) - len(new)
    return ShipmentAnswer(taken=len(new), known=known, refused=tuple(readable.refused))


def _sums(batches: Sequence[UsageBatch]) -> tuple[Mapping[RowKey, Figures], Mapping[RowKey, Figures]]:
    rows = ingest.rows_of(batches)
    return rows, ingest.totals_of(rows)


async def _note_keys(database: Database, used: Mapping[str, datetime]) -> None:
    """Note when keys were last used, in a separate transaction, as regions share keys and would block each other."""
    try:
        async with database.transaction() as session:
            await note_keys_used(session, used)
    except UnavailableError:
        return  # the usage is taken; the next shipment says it again
