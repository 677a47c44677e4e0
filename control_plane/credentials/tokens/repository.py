"""Queries on tokens that are in force."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.models import Token
from control_plane.storage import NamedRows

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
    """Whether another admin token is in force, and without an end: one that expires is soon none."""
    query = select(Token.token_id).where(
        Token.role == "admin",
        Token.token_id != token_id,
        Token.revoked_at.is_(None),
        Token.expires_at.is_(None),
    )
    return (await session.scalar(query.limit(1))) is not None
