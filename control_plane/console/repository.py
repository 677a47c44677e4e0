"""Queries on the console's sessions, and on the decisions that nodes reported lately."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Row, Select, cast, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.console.models import ConsoleSession
from control_plane.credentials.tokens.models import Token
from control_plane.credentials.tokens.repository import IN_FORCE
from control_plane.nodes.models import NodeReportRow

IDLE = timedelta(minutes=30)
LONGEST = timedelta(hours=12)
LINK_LIVES = timedelta(minutes=15)


async def session_in_force(session: AsyncSession, sha256: str) -> Row[ConsoleSession, Token] | None:
    """The session with this hash and its token (``None`` for a person), unless it has ended."""
    return (await session.execute(_in_force().where(ConsoleSession.sha256 == sha256))).one_or_none()


async def sessions_in_force(
    session: AsyncSession, hashes: Collection[str]
) -> list[tuple[ConsoleSession, Token | None]]:
    """The sessions among these hashes that have not ended, each with its token (``None`` for a person)."""
    rows = await session.execute(_in_force().where(ConsoleSession.sha256.in_(hashes)))
    return [(row, token) for row, token in rows]


async def note_seen(session: AsyncSession, sha256: str) -> None:
    """Record that the session was used now."""
    seen = update(ConsoleSession).where(ConsoleSession.sha256 == sha256)
    await session.execute(seen.values(last_seen_at=func.now()))


async def delete_ended(session: AsyncSession) -> None:
    """Delete every session and link that has ended."""
    await session.execute(delete(ConsoleSession).where(_ended()))


async def delete_session(session: AsyncSession, sha256: str) -> None:
    """Delete the session with this hash."""
    await session.execute(delete(ConsoleSession).where(ConsoleSession.sha256 == sha256))


async def take_link(session: AsyncSession, sha256: str) -> Row[str | None, str | None] | None:
    """Delete the link with this hash. Returns its ``token_id`` and ``token_sha256``, or ``None`` without one."""
    used = delete(ConsoleSession).where(ConsoleSession.sha256 == sha256, ConsoleSession.kind == "link")
    return (await session.execute(used.returning(ConsoleSession.token_id, ConsoleSession.token_sha256))).first()


def _in_force() -> Select[ConsoleSession, Token]:
    # the session's token is in force, and so is the secret of it that was used at the login
    token = (ConsoleSession.token_id == Token.token_id) & IN_FORCE & Token.known_by(ConsoleSession.token_sha256)
    query = select(ConsoleSession, Token).outerjoin(Token, token)
    has_owner = or_(Token.token_id.is_not(None), ConsoleSession.person.is_not(None))
    return query.where(ConsoleSession.kind == "session", has_owner, ~_ended())


def _ended() -> ColumnElement[bool]:
    old_link = (ConsoleSession.kind == "link") & (ConsoleSession.created_at <= func.now() - LINK_LIVES)
    idle = (ConsoleSession.kind == "session") & (ConsoleSession.last_seen_at <= func.now() - IDLE)
    return or_(old_link, idle, ConsoleSession.created_at <= func.now() - LONGEST)


class Decisions(NamedTuple):
    """What nodes of a region reported for a step of time, in requests."""

    decided: int = 0
    denied: int = 0
    without_store: int = 0


async def reported_decisions(
    session: AsyncSession, since: datetime, step_s: int
) -> Mapping[tuple[int, str], Decisions]:
    """What nodes reported since then, by step (its number since the epoch) and region."""
    step = cast(func.floor(func.extract("epoch", NodeReportRow.at) / step_s), BigInteger)
    sums = (func.sum(NodeReportRow.decisions), func.sum(NodeReportRow.denied), func.sum(NodeReportRow.degraded))
    query = select(step, NodeReportRow.region, *sums).where(NodeReportRow.at > since).group_by(step, "region")
    rows = await session.execute(query)
    return {
        (int(number), region): Decisions(int(decided), int(denied), int(without_store))
        for number, region, decided, denied, without_store in rows
    }
