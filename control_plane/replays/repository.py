"""Queries on answers kept for replays."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.replays.models import ReplayRow

KEPT = timedelta(hours=24)
FORGOTTEN_A_WRITE = 100


async def earlier(session: AsyncSession, author: str, key: str) -> ReplayRow:
    """What this author did under this key."""
    query = select(ReplayRow).where(ReplayRow.author == author, ReplayRow.idempotency_key == key)
    return (await session.scalars(query)).one()


async def claim(session: AsyncSession, author: str, key: str, request_sha256: str) -> bool:
    """Record that this write is done under ``key``, and forget a few that are too old to be asked for.

    ``False`` where one was in the last 24 hours; one that is under way is waited for.
    """
    old = select(ReplayRow.author, ReplayRow.idempotency_key).where(ReplayRow.created_at <= func.now() - KEPT)
    gone = old.limit(FORGOTTEN_A_WRITE).subquery()
    await session.execute(
        delete(ReplayRow).where(ReplayRow.author == gone.c.author, ReplayRow.idempotency_key == gone.c.idempotency_key)
    )
    values: dict[str, Any] = {
        "request_sha256": request_sha256,
        "status": None,
        "headers": {},
        "body": None,
        "made": None,
        "created_at": func.now(),
    }
    statement = insert(ReplayRow).values(author=author, idempotency_key=key, **values)
    statement = statement.on_conflict_do_update(
        index_elements=["author", "idempotency_key"], set_=values, where=ReplayRow.created_at <= func.now() - KEPT
    )
    return (await session.scalar(statement.returning(ReplayRow.author))) is not None


async def answered(
    session: AsyncSession,
    author: str,
    key: str,
    *,
    status: int,
    headers: dict[str, str],
    body: str | None,
    made: dict[str, Any] | None,
) -> None:
    """Keep the answer. ``made`` in place of ``body`` where that held a secret."""
    row = update(ReplayRow).where(ReplayRow.author == author, ReplayRow.idempotency_key == key)
    await session.execute(row.values(status=status, headers=headers, body=body, made=made))


async def forget(session: AsyncSession, before: datetime) -> int:
    """Delete answers kept since before ``before``; returns how many."""
    result = await session.execute(delete(ReplayRow).where(ReplayRow.created_at < before).returning(ReplayRow.author))
    return len(result.all())
