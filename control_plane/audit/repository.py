"""Queries on the audit log: it is read, and by retention alone shortened."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.audit.models import AuditRow

_APPEND = text("""
INSERT INTO audit_log
    (author, role, reason, revision, request_id, address, action, resource, name, before, after)
SELECT CAST(:author AS text), CAST(:role AS text), CAST(:reason AS text),
       coalesce(CAST(:revision AS bigint), (SELECT revision FROM config_head)),
       CAST(:request_id AS text), CAST(:address AS text), action, resource, name, before::jsonb, after::jsonb
FROM unnest(CAST(:actions AS text[]), CAST(:resources AS text[]), CAST(:names AS text[]), CAST(:befores AS text[]),
            CAST(:afters AS text[])) WITH ORDINALITY AS event(action, resource, name, before, after, place)
ORDER BY place
""")


async def page(
    session: AsyncSession, where: Sequence[ColumnElement[bool]], before: int | None, count: int
) -> Sequence[AuditRow]:
    """The newest ``count`` entries for which all of ``where`` holds, with ids below ``before`` if given."""
    query = select(AuditRow).where(*where).order_by(AuditRow.id.desc()).limit(count)
    if before is not None:
        query = query.where(AuditRow.id < before)
    return (await session.scalars(query)).all()


async def entry(session: AsyncSession, id: int, where: Sequence[ColumnElement[bool]]) -> AuditRow | None:
    """One entry, if all of ``where`` holds for it."""
    return (await session.scalars(select(AuditRow).where(AuditRow.id == id, *where))).one_or_none()


async def retain(session: AsyncSession, older_than: datetime, most: int) -> int:
    """Delete at most ``most`` entries from before ``older_than``, which lies at least 30 days back; says how many.

    For the retention job. The database refuses every other way to delete or change an entry.
    """
    return await session.scalar(select(func.audit_log_retain(older_than, most))) or 0


async def append(session: AsyncSession, values: Mapping[str, Any]) -> None:
    """Add entries: lists of what differs between them, and what they share."""
    await session.execute(_APPEND, values)
