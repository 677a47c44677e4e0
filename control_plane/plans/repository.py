"""Queries on plans."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.plans.models import PlanRow


async def all_plans(session: AsyncSession) -> Sequence[PlanRow]:
    """Every plan with its limits."""
    return (await session.scalars(select(PlanRow))).all()


async def plan(session: AsyncSession, name: str) -> PlanRow:
    """An existing plan, or an error."""
    return (await session.scalars(select(PlanRow).where(PlanRow.plan == name))).one()
