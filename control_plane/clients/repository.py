"""Queries on clients, keys and overrides."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ARRAY, DateTime, Text, any_, bindparam, cast, column, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.audit.models import AuditRow
from control_plane.clients.models import ClientRow, KeyRow, OverrideRow
from control_plane.storage import NamedRows

clients = NamedRows(
    ClientRow,
    ClientRow.client,
    sortable={
        "plan": ClientRow.plan,
        "status": ClientRow.status,
        "external_id": ClientRow.external_id,
        "created_at": ClientRow.created_at,
    },
)
_KEYS_BY = {
    "name": KeyRow.name,
    "created_at": KeyRow.created_at,
    "expires_at": KeyRow.expires_at,
    "last_used": KeyRow.last_used_at,
}


def keys_of(client: str) -> NamedRows[KeyRow]:
    """The keys of one client."""
    return NamedRows(KeyRow, KeyRow.key_id, KeyRow.client == client, _KEYS_BY)


def keys_by_prefix(prefix: str) -> NamedRows[KeyRow]:
    """Keys whose secret begins like ``prefix``, as far as either is known."""
    longer = KeyRow.prefix.startswith(prefix, autoescape=True)
    shorter = func.starts_with(literal(prefix), KeyRow.prefix)  # as text: it may hold what LIKE takes for a pattern
    return NamedRows(KeyRow, KeyRow.key_id, or_(longer, shorter), _KEYS_BY)


def overrides_of(client: str) -> NamedRows[OverrideRow]:
    """The overrides of one client."""
    return NamedRows(
        OverrideRow,
        OverrideRow.limit_name,
        OverrideRow.client == client,
        sortable={"expires_at": OverrideRow.expires_at},
    )


async def generations_left(session: AsyncSession, names: Sequence[str]) -> dict[str, int]:
    """The largest generation that each of these clients had when it was deleted, as far as the audit log reaches."""
    wanted = bindparam("names", list(names), type_=ARRAY(Text(collation="C")))
    gone = select(AuditRow.name, func.max(AuditRow.before["generation"].as_integer())).group_by(AuditRow.name)
    gone = gone.where(AuditRow.resource == "client", AuditRow.name == any_(wanted), AuditRow.after.is_(None))
    return {name: generation or 0 for name, generation in await session.execute(gone)}


async def key_by_secret(session: AsyncSession, sha256: str) -> KeyRow | None:
    """The key with this hash, whosever it is."""
    return await session.scalar(select(KeyRow).where(KeyRow.sha256 == sha256))


async def key_hashes(session: AsyncSession, client: str) -> Sequence[str]:
    """The hashes of a client's keys, which name their documents."""
    return (await session.scalars(select(KeyRow.sha256).where(KeyRow.client == client))).all()


async def note_keys_used(session: AsyncSession, used: Mapping[str, datetime]) -> None:
    """Record when keys (by ``key_id``) were last used; an earlier time than the known one changes nothing.

    None was used in times to come, whatever a node's clock says.
    """
    if not used:
        return
    seen = (
        func.unnest(cast(list(used), ARRAY(Text)), cast(list(used.values()), ARRAY(DateTime(timezone=True))))
        .table_valued(column("key_id", Text), column("at", DateTime(timezone=True)))
        .render_derived("seen")
    )
    at = func.least(seen.c.at, func.now())
    newer = KeyRow.last_used_at.is_(None) | (KeyRow.last_used_at < at)
    await session.execute(
        update(KeyRow).where(KeyRow.key_id == seen.c.key_id, newer).values(last_used_at=at),
        execution_options={"synchronize_session": False},
    )
