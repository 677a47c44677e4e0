"""Queries on enforcement overrides."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.enforcement.models import EnforcementRow
from control_plane.resources import NamedRows

overrides = NamedRows(
    EnforcementRow,
    EnforcementRow.target,
    sortable={"set_at": EnforcementRow.set_at, "expires_at": EnforcementRow.expires_at},
)


async def any_ended(session: AsyncSession) -> bool:
    """Whether one has ended."""
    return bool(await session.scalar(select(exists().where(EnforcementRow.expires_at <= func.now()))))


async def delete_ended(session: AsyncSession) -> Sequence[str]:
    """Delete ended overrides. Returns their targets."""
    statement = delete(EnforcementRow).where(EnforcementRow.expires_at <= func.now()).returning(EnforcementRow.target)
    return (await session.scalars(statement)).all()


async def in_force(session: AsyncSession, now: datetime) -> Sequence[EnforcementRow]:
    """Overrides in force at ``now``."""
    lasting = or_(EnforcementRow.expires_at.is_(None), EnforcementRow.expires_at > now)
    return (await session.scalars(select(EnforcementRow).where(lasting))).all()
