"""The configuration as it is, in normal form; and beside it the runtime state that no file decides."""

from collections.abc import AsyncIterator, Collection
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients import repository as client_rows
from control_plane.clients.schemas import ClientRecord
from control_plane.config_file.entries import Normal, normal_client, normal_override
from control_plane.config_file.sections import SECTIONS

CLIENTS_A_QUERY = 5_000


async def current(session: AsyncSession, names: Collection[str]) -> dict[str, dict[str, Normal]]:
    """These sections as they are; without clients."""
    return {section.name: await section.current(session) for section in SECTIONS if section.name in names}


async def clients(session: AsyncSession) -> dict[str, Normal]:
    """Every client in normal form."""
    return {name: client_of_record(record) async for part in client_records(session) for name, record in part.items()}


async def client_records(session: AsyncSession) -> AsyncIterator[dict[str, ClientRecord]]:
    """Every client, in parts by name."""
    after = ""
    while True:
        names = await client_rows.names_after(session, after, CLIENTS_A_QUERY)
        if not names:
            return
        found = await client_rows.records(session, names)
        yield {name: found[name] for name in names}
        after = names[-1]


def client_of_record(record: ClientRecord) -> Normal:
    """The normal form of a client as it is. Overrides that expire are runtime state, what comes after them is not."""
    overrides = {
        name: normal_override(lasting.limit, lasting.burst)
        for name, figures in record.overrides.items()
        if (lasting := figures.lasting) is not None
    }
    return normal_client(record.plan, record.status, record.attributes, record.external_id, overrides)


def whole(sections: dict[str, dict[str, Normal]], order: Collection[str]) -> dict[str, Any]:
    """The file."""
    return {"version": 1, **{name: sections[name] for name in order if name in sections}}
