"""Queries on enforcement overrides."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.blocks.models import BlockRow
from control_plane.enforcement.models import EnforcementRow
from control_plane.publishing.repository import DocumentKey
from control_plane.resources import NamedRows
from tidegate.contract.config import Kind

overrides = NamedRows(
    EnforcementRow,
    EnforcementRow.target,
    sortable={"set_at": EnforcementRow.set_at, "expires_at": EnforcementRow.expires_at},
)


async def any_ended(session: AsyncSession) -> bool:
    """Whether an override or a block has ended."""
    ended = [exists().where(table.expires_at <= func.now()) for table in (EnforcementRow, BlockRow)]
    return bool(await session.scalar(select(or_(*ended))))


async def delete_ended(session: AsyncSession) -> list[DocumentKey]:
    """Delete ended overrides and blocks. Returns the names of their documents."""
    names: dict[Kind, InstrumentedAttribute[str]] = {"enforcement": EnforcementRow.target, "block": BlockRow.block}
    gone = []
    for kind, name in names.items():
        ended = delete(name.class_).where(name.class_.expires_at <= func.now())
        gone += [DocumentKey(kind, one) for one in await session.scalars(ended.returning(name))]
    return gone


async def in_force(session: AsyncSession, now: datetime) -> Sequence[EnforcementRow]:
    """Overrides in force at ``now``."""
    lasting = or_(EnforcementRow.expires_at.is_(None), EnforcementRow.expires_at > now)
    return (await session.scalars(select(EnforcementRow).where(lasting))).all()
