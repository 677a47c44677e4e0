"""Queries on tokens."""

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.models import Token
from control_plane.access.principals import Principal


async def principal_by_secret(session: AsyncSession, sha256: str) -> Principal | None:
    """Who holds the token with this hash, unless it is revoked or expired."""
    in_force = Token.revoked_at.is_(None) & or_(Token.expires_at.is_(None), Token.expires_at > func.now())
    row = (await session.execute(select(Token.token_id, Token.name, Token.role).where(Token.sha256 == sha256, in_force))).one_or_none()
    return None if row is None else Principal(row.name, row.role, row.token_id)


async def any_admin(session: AsyncSession) -> bool:
    """Whether an admin token exists, be it revoked: the first one is never made twice."""
    return (await session.scalar(select(Token.token_id).where(Token.role == "admin").limit(1))) is not None
