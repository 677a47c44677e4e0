"""Queries on clients, keys and overrides."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    column,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import Grant
from control_plane.audit.models import AuditRow
from control_plane.clients.figures import figures_of
from control_plane.clients.models import ClientRow, KeyRow, OverrideRow
from control_plane.clients.schemas import ClientFields, ClientRecord, OverrideFigures
from control_plane.orm import Base
from control_plane.resources import NamedRows

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
_CLIENTS, _OVERRIDES = Base.metadata.tables["clients"], Base.metadata.tables["overrides"]
_PUT = text("""
INSERT INTO clients (client, plan, status, attributes, external_id, generation)
SELECT wish.client, wish.plan, wish.status, wish.attributes::jsonb, wish.external_id, wish.generation
FROM unnest(CAST(:clients AS text[]), CAST(:plans AS text[]), CAST(:statuses AS text[]), CAST(:attributes AS text[]),
            CAST(:external_ids AS text[]), CAST(:generations AS bigint[]))
    AS wish(client, plan, status, attributes, external_id, generation)
ON CONFLICT (client) DO UPDATE SET plan = excluded.plan, status = excluded.status,
    attributes = excluded.attributes, external_id = excluded.external_id
RETURNING client, generation, created_at
""")
_PUT_OVERRIDES = text("""
INSERT INTO overrides (client, limit_name, "limit", burst, expires_at, then_limit, then_burst)
SELECT client, limit_name, "limit", burst, expires_at, then_limit, then_burst
FROM unnest(CAST(:clients AS text[]), CAST(:names AS text[]), CAST(:limits AS bigint[]),
            CAST(:bursts AS bigint[]), CAST(:ends AS timestamptz[]), CAST(:then_limits AS bigint[]),
            CAST(:then_bursts AS bigint[]))
    AS wish(client, limit_name, "limit", burst, expires_at, then_limit, then_burst)
ON CONFLICT (client, limit_name) DO UPDATE SET "limit" = excluded."limit", burst = excluded.burst,
    expires_at = excluded.expires_at, then_limit = excluded.then_limit, then_burst = excluded.then_burst
""")
_DROP_OVERRIDES = text("""
DELETE FROM overrides USING unnest(CAST(:clients AS text[]), CAST(:names AS text[])) AS gone(client, limit_name)
WHERE overrides.client = gone.client AND overrides.limit_name = gone.limit_name
""")
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
    """The key with this hash, of any client."""
    return await session.scalar(select(KeyRow).where(KeyRow.sha256 == sha256))


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


async def put(
    session: AsyncSession, wanted: Mapping[str, ClientFields], generations: Mapping[str, int]
) -> dict[str, Any]:
    """Make or change clients; rows of ``client``, ``generation``, ``created_at``. A generation that is there stays."""
    bodies = wanted.values()
    values = {
        "clients": list(wanted),
        "plans": [body.plan for body in bodies],
        "statuses": [body.status for body in bodies],
        "attributes": [json.dumps(dict(sorted(body.attributes.items()))) for body in bodies],
        "external_ids": [body.external_id for body in bodies],
        "generations": [generations.get(name, 0) for name in wanted],
    }
    return {row.client: row for row in await session.execute(_PUT, values)}


async def records(session: AsyncSession, names: Sequence[str]) -> dict[str, ClientRecord]:
    """The existing clients of ``names``, with their overrides."""
    wanted = bindparam("names", list(names), type_=ARRAY(Text(collation="C")))
    found = (await session.execute(select(_CLIENTS).where(_CLIENTS.c.client == any_(wanted)))).all()
    overrides: dict[str, dict[str, OverrideFigures]] = {}
    for row in await session.execute(select(_OVERRIDES).where(_OVERRIDES.c.client == any_(wanted))):
        overrides.setdefault(row.client, {})[row.limit_name] = figures_of(row)
    return {
        row.client: ClientRecord.model_construct(
            client=row.client,
            plan=row.plan,
            status=row.status,
            attributes=row.attributes,
            external_id=row.external_id,
            generation=row.generation,
            created_at=row.created_at,
            overrides=dict(sorted(overrides.get(row.client, {}).items())),
        )
        for row in found
    }


async def put_overrides(session: AsyncSession, wanted: Sequence[tuple[str, str, OverrideFigures]]) -> None:
    """Make or change overrides, each of a client and a limit."""
    if wanted:
        values: dict[str, list[Any]] = {
            "clients": [client for client, _, _ in wanted],
            "names": [name for _, name, _ in wanted],
            "limits": [figures.limit for _, _, figures in wanted],
            "bursts": [figures.burst for _, _, figures in wanted],
            "ends": [figures.expires_at for _, _, figures in wanted],
            "then_limits": [None if figures.then is None else figures.then.limit for _, _, figures in wanted],
            "then_bursts": [None if figures.then is None else figures.then.burst for _, _, figures in wanted],
        }
        await session.execute(_PUT_OVERRIDES, values)


async def drop_overrides(session: AsyncSession, gone: Sequence[tuple[str, str]]) -> None:
    """Delete overrides, each of a client and a limit."""
    if gone:
        values = {"clients": [client for client, _ in gone], "names": [name for _, name in gone]}
        await session.execute(_DROP_OVERRIDES, values)


async def overriding(session: AsyncSession, plan: str, limits: Collection[str]) -> Sequence[str]:
    """The clients of a plan that have overrides of these limits."""
    having = select(_OVERRIDES.c.client).join(_CLIENTS, _CLIENTS.c.client == _OVERRIDES.c.client).distinct()
    wanted = bindparam("limits", list(limits), type_=ARRAY(Text(collation="C")))
    having = having.where(_CLIENTS.c.plan == plan, _OVERRIDES.c.limit_name == any_(wanted))
    return (await session.scalars(having.order_by(_OVERRIDES.c.client))).all()


async def delete_all(session: AsyncSession, names: Sequence[str]) -> Sequence[str]:
    """Delete these clients with their overrides and keys. Returns the hashes of those keys."""
    wanted = bindparam("names", list(names), type_=ARRAY(Text(collation="C")))
    hashes = (await session.scalars(select(KeyRow.sha256).where(KeyRow.client == any_(wanted)))).all()
    await session.execute(text("DELETE FROM clients WHERE client = ANY(:names)"), {"names": list(names)})
    return hashes


async def names_after(session: AsyncSession, after: str, count: int) -> Sequence[str]:
    """The first ``count`` clients after this name."""
    query = select(ClientRow.client).where(ClientRow.client > after).order_by(ClientRow.client)
    return (await session.scalars(query.limit(count))).all()


async def with_ended_overrides(session: AsyncSession, now: datetime, count: int) -> Sequence[ClientRow]:
    """The first ``count`` clients of whose overrides one has ended at ``now``."""
    due = select(OverrideRow.client).where(OverrideRow.expires_at <= now).distinct().limit(count)
    query = select(ClientRow).where(ClientRow.client.in_(due)).order_by(ClientRow.client)
    return (await session.scalars(query)).all()


async def ended_keys(session: AsyncSession, now: datetime, count: int) -> Sequence[KeyRow]:
    """The first ``count`` keys that have ended at ``now``."""
    return (
        await session.scalars(select(KeyRow).where(KeyRow.expires_at <= now).order_by(KeyRow.key_id).limit(count))
    ).all()


async def ended_of(session: AsyncSession, hashes: Sequence[str]) -> Sequence[KeyRow]:
    """Those of the keys with these hashes that have ended."""
    query = select(KeyRow).where(KeyRow.sha256 == func.any(list(hashes)), KeyRow.expires_at <= func.now())
    return (await session.scalars(query.order_by(KeyRow.key_id))).all()


async def any_ended(session: AsyncSession, now: datetime) -> bool:
    """Whether a key or an override has ended at ``now``."""
    ended = or_(exists().where(OverrideRow.expires_at <= now), exists().where(KeyRow.expires_at <= now))
    return bool(await session.scalar(select(ended)))


async def every_nth(session: AsyncSession, count: int) -> Sequence[str]:
    """Every ``count``th client, by name."""
    numbered = select(ClientRow.client, func.row_number().over(order_by=ClientRow.client).label("number")).subquery()
    query = select(numbered.c.client).where(numbered.c.number % count == 0).order_by(numbered.c.client)
    return (await session.scalars(query)).all()


async def count_on(session: AsyncSession, plan: str) -> int:
    """How many clients are on a plan."""
    return await session.scalar(select(func.count()).where(ClientRow.plan == plan)) or 0


async def plan_of(session: AsyncSession, client: str) -> str | None:
    """The plan that a client is on, if there is such a client."""
    return await session.scalar(select(ClientRow.plan).where(ClientRow.client == client))


def covered_by(grants: Sequence[Grant]) -> list[ColumnElement[bool]]:
    """The condition that a grant covers the client; none without grants."""
    return [or_(*map(_covers, grants))] if grants else []


def _covers(grant: Grant) -> ColumnElement[bool]:
    prefixes = [ClientRow.client.startswith(prefix, autoescape=True) for prefix in grant.client_prefixes]
    named = or_(*prefixes) if prefixes else true()
    return and_(named, ClientRow.plan.in_(grant.plans) if grant.plans else true())
