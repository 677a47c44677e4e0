"""Queries on what no file decides, and on what revisions changed."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.blocks.models import BlockRow
from control_plane.clients.models import KeyRow, OverrideRow
from control_plane.enforcement.models import EnforcementRow
from control_plane.limits.models import LimitRow
from control_plane.limits.repository import quota_key
from control_plane.routes.models import BackendRow

SHOWN = 100
_CHANGED = text("""
SELECT resource, name, (array_agg(before ORDER BY id))[1] AS before, (array_agg(after ORDER BY id DESC))[1] AS after
FROM audit_log WHERE revision > :number AND revision <= :until AND resource = ANY(:resources)
GROUP BY resource, name ORDER BY resource, name
""").columns(before=JSONB(none_as_null=True), after=JSONB(none_as_null=True))
_FORGOTTEN = text("""
SELECT min(number) FROM revisions
WHERE number > :number AND number <= :until AND jsonb_array_length(changes) > 0
  AND NOT EXISTS (SELECT FROM audit_log WHERE audit_log.revision = revisions.number)
""")
_RULES_THEN = text("""
SELECT DISTINCT ON (change->>'kind', change->>'id') change->>'kind' AS kind, change->>'id' AS id,
       change->'before' AS before
FROM revisions, jsonb_array_elements(changes) AS change
WHERE number > :number AND number <= :until AND change->>'kind' IN ('plan', 'limit')
ORDER BY change->>'kind', change->>'id', number
""")

_KEYS_WITHDRAWN = text("""
SELECT change->>'id' AS sha256, key->>'key_id' AS key_id, key->>'client' AS client,
       to_timestamp(CAST(key->>'expires_at' AS double precision)) AS expires_at,
       shown.after->>'name' AS name, shown.after->>'prefix' AS prefix
FROM revisions, jsonb_array_elements(changes) AS change, LATERAL (SELECT change->'before' AS key) AS withdrawn
LEFT JOIN LATERAL (
    SELECT after FROM audit_log
    WHERE resource = 'key' AND audit_log.name = (key->>'client') || '/' || (key->>'key_id') AND after IS NOT NULL
    ORDER BY id DESC LIMIT 1
) AS shown ON true
WHERE number = :number AND change->>'kind' = 'key' AND jsonb_typeof(change->'after') = 'null'
ORDER BY key_id
""")


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
    enforced = await session.scalars(select(EnforcementRow).order_by(EnforcementRow.target).limit(SHOWN))
    overrides = await session.execute(expiring.order_by(OverrideRow.client, OverrideRow.limit_name).limit(SHOWN))
    split = await session.execute(auto.order_by(LimitRow.plan, LimitRow.name).limit(SHOWN))
    return [
        *(_state("manual factor", row.backend, f"{row.manual_factor:g}", row.manual_expires_at) for row in factors),
        *(_state("block", row.block, _subject(row), row.expires_at) for row in blocks),
        *(_state("enforcement", row.target, row.mode, row.expires_at) for row in enforced),
        *(_state("override", f"{row.client}/{row.limit_name}", str(row.limit), row.expires_at) for row in overrides),
        *(_state("shares", quota_key(row.plan, row.name), "auto", None) for row in split),
    ]


def _subject(block: BlockRow) -> str:
    return block.client or block.key_id or block.network or block.endpoint or ""


def _state(kind: str, name: str, value: str, expires_at: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "value": value, "expires_at": expires_at}


async def changed(
    session: AsyncSession, number: int, until: int, resources: Collection[str]
) -> Sequence[Row[str, str, Any, Any]]:
    """What these resources were before they were first changed by a revision after ``number``, and after the last of
    those up to ``until``.
    """
    values = {"number": number, "until": until, "resources": list(resources)}
    return (await session.execute(_CHANGED, values)).all()


async def forgotten(session: AsyncSession, number: int, until: int) -> int | None:
    """The first revision after ``number``, up to ``until``, of which the audit log says nothing any more."""
    found: int | None = await session.scalar(_FORGOTTEN, {"number": number, "until": until})
    return found


async def rules_then(session: AsyncSession, number: int, until: int) -> Sequence[Row[str, str, Any]]:
    """The documents of plans and limits as they were at revision ``number``, of those changed up to ``until``."""
    return (await session.execute(_RULES_THEN, {"number": number, "until": until})).all()


async def keys_withdrawn(session: AsyncSession, number: int) -> Sequence[KeyRow]:
    """The keys that revision ``number`` took from nodes, as they were; nameless where the audit log was shortened."""
    found = await session.execute(_KEYS_WITHDRAWN, {"number": number})
    return [KeyRow(**row) for row in found.mappings()]
