"""Queries on enforcement overrides."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.enforcement.models import SwitchRow
from control_plane.resources import NamedRows

switches = NamedRows(
    SwitchRow, SwitchRow.target, sortable={"set_at": SwitchRow.set_at, "expires_at": SwitchRow.expires_at}
)


async def of_targets(session: AsyncSession, targets: Collection[str]) -> Sequence[SwitchRow]:
    """The enforcement overrides of these targets."""
    query = select(SwitchRow).where(SwitchRow.target.in_(targets)).order_by(SwitchRow.target)
    return (await session.scalars(query)).all()


async def any_ended(session: AsyncSession) -> bool:
    """Whether one has ended."""
    return bool(await session.scalar(select(exists().where(SwitchRow.expires_at <= func.now()))))


async def delete_ended(session: AsyncSession) -> Sequence[str]:
    """Delete ended overrides. Returns their targets."""
    statement = delete(SwitchRow).where(SwitchRow.expires_at <= func.now()).returning(SwitchRow.target)
    return (await session.scalars(statement)).all()


async def in_force(session: AsyncSession, now: datetime) -> Sequence[SwitchRow]:
    """Overrides in force at ``now``."""
    lasting = or_(SwitchRow.expires_at.is_(None), SwitchRow.expires_at > now)
    return (await session.scalars(select(SwitchRow).where(lasting))).all()
