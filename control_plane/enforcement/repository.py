"""Queries on enforcement overrides."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.blocks.models import BlockRow
from control_plane.enforcement.models import EnforcementRow
from control_plane.resources import NamedRows

Ending = TypeVar("Ending", EnforcementRow, BlockRow)

overrides = NamedRows(
    EnforcementRow,
    EnforcementRow.target,
    sortable={"set_at": EnforcementRow.set_at, "expires_at": EnforcementRow.expires_at},
)


async def any_ended(session: AsyncSession) -> bool:
    """Whether an override or a block has ended."""
    ended = [exists().where(table.expires_at <= func.now()) for table in (EnforcementRow, BlockRow)]
    return bool(await session.scalar(select(or_(*ended))))


async def ended(session: AsyncSession, table: type[Ending], now: datetime, most: int) -> Sequence[Ending]:
    """Overrides or blocks that have ended at ``now``."""
    return (await session.scalars(select(table).where(table.expires_at <= now).limit(most))).all()


async def in_force(session: AsyncSession, now: datetime) -> Sequence[EnforcementRow]:
    """Overrides in force at ``now``."""
    lasting = or_(EnforcementRow.expires_at.is_(None), EnforcementRow.expires_at > now)
    return (await session.scalars(select(EnforcementRow).where(lasting))).all()
