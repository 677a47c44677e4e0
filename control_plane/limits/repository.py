"""Queries on limits."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.limits.models import SPLIT_MODES, LimitRow, LimitShare
from control_plane.web.pages import Page
from tidegate.contract.usage import OUTSIDE_PLANS


def quota_key(plan: str | None, limit: str) -> str:
    """The name under which a limit's quota is listed: ``plan/limit``, ``_/limit`` outside plans."""
    return f"{plan or OUTSIDE_PLANS}/{limit}"


async def split_limits(session: AsyncSession, page: Page, where: Sequence[ColumnElement[bool]]) -> Sequence[LimitRow]:
    """Limits that are split over regions, by mode or by explicit shares, ordered by ``quota_key``."""
    key = func.coalesce(LimitRow.plan, OUTSIDE_PLANS) + "/" + LimitRow.name
    has_shares = select(LimitShare.limit_id).where(LimitShare.limit_id == LimitRow.id).exists()
    query = select(LimitRow).where(or_(LimitRow.mode.in_(SPLIT_MODES), has_shares, LimitRow.auto_shares), *where)
    if page.after is not None:
        query = query.where(key > page.after)
    return (await session.scalars(query.order_by(key).limit(page.limit + 1))).all()
