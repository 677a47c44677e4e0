"""Queries on tokens."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, exists, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import Grant, Principal
from control_plane.credentials.tokens.models import Token
from control_plane.resources import NamedRows

FIRST_TOKEN_LOCK = 0x71DE6A7E
IN_FORCE = Token.revoked_at.is_(None) & or_(Token.expires_at.is_(None), Token.expires_at > func.now())
live = NamedRows(
    Token,
    Token.token_id,
    Token.revoked_at.is_(None),
    {
        "name": Token.name,
        "role": Token.role,
        "created_at": Token.created_at,
        "expires_at": Token.expires_at,
        "last_used": Token.last_used_at,
    },
)
live_by_name = NamedRows(Token, Token.name, Token.revoked_at.is_(None))


async def other_lasting_admin(session: AsyncSession, token_id: str) -> bool:
    """Whether another admin token is in force that never expires."""
    query = select(Token.token_id).where(
        Token.role == "admin",
        Token.token_id != token_id,
        Token.revoked_at.is_(None),
        Token.expires_at.is_(None),
    )
    return (await session.scalar(query.limit(1))) is not None


async def principal_by_secret(session: AsyncSession, sha256: str) -> Principal | None:
    """Who holds the token with this hash, unless it is revoked or expired; after a rotation the hash before it too."""
    query = select(Token.token_id, Token.name, Token.role, Token.scoped_grant)
    row = (await session.execute(query.where(Token.known_by(sha256), IN_FORCE))).one_or_none()
    if row is None:
        return None
    return Principal(row.name, row.role, row.token_id, sha256, grants_of(row.scoped_grant))


def grants_of(stored: Mapping[str, Any] | None) -> tuple[Grant, ...]:
    """The grants of a token by its ``scoped_grant``."""
    return () if stored is None else (Grant.of(stored),)


def of_role(role: str | None) -> list[ColumnElement[bool]]:
    """The condition that a token has this role, everywhere or for some clients; none for any role."""
    return [] if role is None else [or_(Token.role == role, Token.scoped_grant["role"].astext == role)]


async def hashes_in_force(session: AsyncSession) -> set[str]:
    """The hashes of every token's secrets that work at this moment."""
    return await Token.hashes_in_force(session, IN_FORCE)


async def note_used(session: AsyncSession, used: Mapping[str, datetime]) -> None:
    """Record when tokens were last used; another replica may know of a later use."""
    ids = sorted(used)  # in one order, so that two replicas never wait for each other in a circle
    for token_id in ids:
        newer = or_(Token.last_used_at.is_(None), Token.last_used_at < used[token_id])
        await session.execute(
            update(Token).where(Token.token_id == token_id, newer).values(last_used_at=used[token_id])
        )


async def any_admin(session: AsyncSession) -> bool:
    """Whether an admin token was ever made, revoked or not: the first one is made once."""
    return (await session.scalar(select(Token.token_id).where(Token.role == "admin").limit(1))) is not None


async def one_at_a_time(session: AsyncSession) -> None:
    """Wait for other replicas that make the first token, until this transaction ends."""
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": FIRST_TOKEN_LOCK})


def _ended(now: datetime) -> ColumnElement[bool]:
    return Token.revoked_at.is_(None) & or_(Token.expires_at <= now, Token.previous_expires_at <= now)


async def any_ended(session: AsyncSession, now: datetime) -> bool:
    """Whether a token has ended at ``now``, or its secret before a rotation."""
    return bool(await session.scalar(select(exists().where(_ended(now)))))


async def ended(session: AsyncSession, now: datetime, count: int) -> Sequence[Token]:
    """The first ``count`` tokens that have ended at ``now``, or their secret before a rotation."""
    return (await session.scalars(select(Token).where(_ended(now)).order_by(Token.token_id).limit(count))).all()
