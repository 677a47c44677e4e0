"""What a write leaves in the audit log, gathered while it runs and stored in its own transaction."""

import json
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.audit import repository

Action = Literal["create", "update", "delete", "rotate", "revoke", "reset", "run"]
SECRETS = frozenset({"secret", "credential", "sha256", "secret_sha256", "previous_sha256"})
"""Members that never reach the log, whatever a caller hands over."""
EVENTS_A_STATEMENT = 5_000


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
    for start in range(0, len(events), EVENTS_A_STATEMENT):
        part = events[start : start + EVENTS_A_STATEMENT]
        values: dict[str, Any] = {
            "actions": [item.action for item in part],
            "resources": [item.resource for item in part],
            "names": [item.name for item in part],
            "befores": [_json(item.before) for item in part],
            "afters": [_json(item.after) for item in part],
        }
        shared = {"author": author, "reason": reason, "revision": revision, **origin._asdict()}
        await repository.append(session, {**values, **shared})


def _json(members: dict[str, Any] | None) -> str | None:
    return None if members is None else json.dumps(members)
