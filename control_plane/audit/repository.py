"""The audit log: what a write leaves in it, stored in the write's own transaction, and how it is read.

By retention alone it is shortened.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.audit.models import AuditRow
from control_plane.database import chunks

Action = Literal["create", "update", "delete", "rotate", "revoke", "reset", "run"]
SECRETS = frozenset({"secret", "credential", "sha256", "secret_sha256", "previous_sha256"})
"""Members that never reach the log, whatever a caller hands over."""
EVENTS_A_STATEMENT = 5_000
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


class Origin(NamedTuple):
    """Where a write comes from, beside its author and reason; jobs leave it empty."""

    role: str | None = None
    request_id: str | None = None
    address: str | None = None


class Event(NamedTuple):
    """One resource before and after; ``None`` where it did not exist."""

    action: Action
    resource: str
    name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def event(action: Action, resource: str, name: str, before: BaseModel | None, after: BaseModel | None) -> Event:
    """An event of two views."""
    return Event(action, resource, name, _plain(before), _plain(after))


def action_of(before: object | None, after: object | None) -> Action:
    """What turned ``before`` into ``after``."""
    if before is None:
        return "create"
    return "update" if after is not None else "delete"


def without_secrets(members: dict[str, Any] | None) -> dict[str, Any] | None:
    """The members that may be kept."""
    return None if members is None else {name: value for name, value in members.items() if name not in SECRETS}


def _plain(view: BaseModel | None) -> dict[str, Any] | None:
    return None if view is None else without_secrets(view.model_dump(mode="json"))


async def store(
    session: AsyncSession,
    events: list[Event],
    *,
    author: str,
    reason: str | None,
    origin: Origin,
    revision: int | None = None,
) -> None:
    """Append ``events``; they become visible with the write itself, or not at all.

    Without a ``revision`` they made none, and have the newest.
    """
    for part in chunks(events, EVENTS_A_STATEMENT):
        values: dict[str, Any] = {
            "actions": [item.action for item in part],
            "resources": [item.resource for item in part],
            "names": [item.name for item in part],
            "befores": [_json(item.before) for item in part],
            "afters": [_json(item.after) for item in part],
        }
        shared = {"author": author, "reason": reason, "revision": revision, **origin._asdict()}
        await session.execute(_APPEND, {**values, **shared})


def _json(members: dict[str, Any] | None) -> str | None:
    return None if members is None else json.dumps(members)


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
    """Delete at most ``most`` entries from before ``older_than``, which lies at least 30 days back. Returns how many.

    For the retention job. The database refuses every other way to delete or change an entry.
    """
    return await session.scalar(select(func.audit_log_retain(older_than, most))) or 0
