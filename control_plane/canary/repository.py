"""Queries on roll-outs and their policy."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from control_plane.canary.models import RolloutRow
from control_plane.publishing.models import RolloutPolicy

DEFAULT_POLICY = {
    "mode": "immediate",
    "node": None,
    "region": None,
    "node_pause_s": 60.0,
    "region_pause_s": 120.0,
    "max_denial_rise": 0.1,
    "max_degraded_rise": 0.05,
    "min_decisions": 100,
}


async def policy(session: AsyncSession) -> RolloutPolicy:
    """The policy in force."""
    return await session.get(RolloutPolicy, 1) or RolloutPolicy(id=1, **DEFAULT_POLICY)


async def store_policy(session: AsyncSession, values: dict[str, Any]) -> None:
    """Set the policy."""
    statement = insert(RolloutPolicy).values(id=1, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


async def rollout(session: AsyncSession, number: int, *, with_held: bool = False) -> RolloutRow | None:
    """The roll-out that began with this revision."""
    query = select(RolloutRow).where(RolloutRow.number == number)
    return await session.scalar(query.options(undefer(RolloutRow.held)) if with_held else query)


async def note_acked(session: AsyncSession, number: int) -> None:
    """Note that every node of the stage has applied it."""
    statement = update(RolloutRow).where(RolloutRow.number == number, RolloutRow.acked_at.is_(None))
    await session.execute(statement.values(acked_at=func.now()))


async def before(
    session: AsyncSession, number: int | None, count: int, where: Sequence[ColumnElement[bool]]
) -> Sequence[RolloutRow]:
    """The newest roll-outs for which ``where`` holds, below ``number`` if given."""
    query = select(RolloutRow).where(*where).order_by(RolloutRow.number.desc()).limit(count)
    return (await session.scalars(query if number is None else query.where(RolloutRow.number < number))).all()


async def under_way_since(session: AsyncSession, since: datetime) -> Sequence[RolloutRow]:
    """Roll-outs that were under way at some moment since then."""
    lasted = or_(RolloutRow.ended_at.is_(None), RolloutRow.ended_at >= since)
    return (await session.scalars(select(RolloutRow).where(lasted))).all()
