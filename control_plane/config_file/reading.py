"""The configuration as it is, in normal form; and beside it the runtime state that no file decides."""

from collections.abc import AsyncIterator, Collection
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.blocks.models import BlockRow
from control_plane.clients import writes
from control_plane.clients.models import ClientRow, OverrideRow
from control_plane.clients.schemas import ClientRecord
from control_plane.config_file.entries import Normal, normal_client, normal_override
from control_plane.config_file.sections import SECTIONS
from control_plane.enforcement.models import SwitchRow
from control_plane.limits.models import LimitRow
from control_plane.routes.models import BackendRow

SHOWN = 100
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
        query = select(ClientRow.client).where(ClientRow.client > after).order_by(ClientRow.client)
        names = (await session.scalars(query.limit(CLIENTS_A_QUERY))).all()
        if not names:
            return
        found = await writes.records(session, names)
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


async def runtime_state(session: AsyncSession) -> list[dict[str, Any]]:
    """What an apply leaves as it is: at most 100 of each kind."""
    manual = select(BackendRow.backend, BackendRow.manual_factor, BackendRow.manual_expires_at).where(
        BackendRow.manual_factor.is_not(None), BackendRow.manual_expires_at > func.now()
    )
    expiring = select(OverrideRow.client, OverrideRow.limit_name, OverrideRow.limit, OverrideRow.expires_at).where(
        OverrideRow.expires_at.is_not(None)
    )
    auto = select(LimitRow.plan, LimitRow.name).where(LimitRow.auto_shares)
    factors = await session.execute(manual.order_by(BackendRow.backend).limit(SHOWN))
    blocks = await session.scalars(select(BlockRow).order_by(BlockRow.block).limit(SHOWN))
    switches = await session.scalars(select(SwitchRow).order_by(SwitchRow.target).limit(SHOWN))
    overrides = await session.execute(expiring.order_by(OverrideRow.client, OverrideRow.limit_name).limit(SHOWN))
    split = await session.execute(auto.order_by(LimitRow.plan, LimitRow.name).limit(SHOWN))
    return [
        *(_state("manual factor", row.backend, f"{row.manual_factor:g}", row.manual_expires_at) for row in factors),
        *(_state("block", row.block, _subject(row), row.expires_at) for row in blocks),
        *(_state("enforcement", row.target, row.mode, row.expires_at) for row in switches),
        *(_state("override", f"{row.client}/{row.limit_name}", str(row.limit), row.expires_at) for row in overrides),
        *(_state("shares", f"{row.plan or '_'}/{row.name}", "auto", None) for row in split),
    ]


def _subject(block: BlockRow) -> str:
    return block.client or block.key_id or block.network or block.endpoint or ""


def _state(kind: str, name: str, value: str, expires_at: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "value": value, "expires_at": expires_at}


def whole(sections: dict[str, dict[str, Normal]], order: Collection[str]) -> dict[str, Any]:
    """The file."""
    return {"version": 1, **{name: sections[name] for name in order if name in sections}}
