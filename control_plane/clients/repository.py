"""Queries on clients, keys and overrides."""

from collections.abc import Sequence

from sqlalchemy import literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients.models import ClientRow, KeyRow, OverrideRow
from control_plane.storage import NamedRows
from control_plane.web.pages import Page

clients = NamedRows(ClientRow, ClientRow.client)


def keys_of(client: str) -> NamedRows[KeyRow]:
    """The keys of one client."""
    return NamedRows(KeyRow, KeyRow.key_id, KeyRow.client == client)


def keys_by_prefix(prefix: str) -> NamedRows[KeyRow]:
    """Keys whose secret begins like ``prefix``, as far as either is known."""
    longer = KeyRow.prefix.startswith(prefix, autoescape=True)
    shorter = literal(prefix).startswith(KeyRow.prefix)
    return NamedRows(KeyRow, KeyRow.key_id, or_(longer, shorter))


def overrides_of(client: str) -> NamedRows[OverrideRow]:
    """The overrides of one client."""
    return NamedRows(OverrideRow, OverrideRow.limit_name, OverrideRow.client == client)


async def key_by_secret(session: AsyncSession, sha256: str) -> KeyRow | None:
    """The key with this hash, whosever it is."""
    return await session.scalar(select(KeyRow).where(KeyRow.sha256 == sha256))


async def page_of_clients(
    session: AsyncSession, page: Page, plan: str | None, status: str | None, external_id: str | None
) -> Sequence[ClientRow]:
    """Clients that have all that is asked for."""
    wanted = [
        column == value
        for column, value in (
            (ClientRow.plan, plan),
            (ClientRow.status, status),
            (ClientRow.external_id, external_id),
        )
        if value is not None
    ]
    within = None
    for condition in wanted:
        within = condition if within is None else within & condition
    return await NamedRows(ClientRow, ClientRow.client, within).page(session, page)


async def key_hashes(session: AsyncSession, client: str) -> Sequence[str]:
    """The hashes of a client's keys, which name their documents."""
    return (await session.scalars(select(KeyRow.sha256).where(KeyRow.client == client))).all()
