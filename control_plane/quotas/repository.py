"""Queries on moves of quotas and on the rebalancer's reasons."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, exists, func, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.limits.models import LimitRow
from control_plane.quotas.models import QuotaBalance, QuotaMove


class ShareOwner(NamedTuple):
    """Whose shares a move is of: the limit with this rule id, and ``QuotaMove.whose``."""

    rule_id: int
    whose: str


async def moves(session: AsyncSession, rule_ids: Iterable[int]) -> dict[ShareOwner, QuotaMove]:
    """The moves of these limits' shares."""
    query = select(QuotaMove).where(QuotaMove.rule_id.in_(list(rule_ids)))
    return {ShareOwner(row.rule_id, row.whose): row for row in await session.scalars(query)}


async def waiting(session: AsyncSession) -> Sequence[QuotaMove]:
    """Moves whose cut is not acknowledged yet, or whose raise has not come."""
    return (
        await session.scalars(select(QuotaMove).where(QuotaMove.waiting).order_by(QuotaMove.rule_id, QuotaMove.whose))
    ).all()


async def forget_moves(session: AsyncSession, rule_ids: Iterable[int]) -> None:
    """These limits' shares begin afresh."""
    await session.execute(delete(QuotaMove).where(QuotaMove.rule_id.in_(list(rule_ids))))


async def forget_orphans(session: AsyncSession, before: datetime) -> int:
    """Drop what is kept of limits that exist no more. Returns how many rows.

    Shares of those that went since ``before`` stay: a rollback may bring them back.
    """
    dropped = 0
    for table, old in ((QuotaMove, QuotaMove.cut_at < before), (QuotaBalance, true())):
        orphaned = ~exists().where(LimitRow.rule_id == table.rule_id)
        dropped += len((await session.scalars(delete(table).where(orphaned, old).returning(table.rule_id))).all())
    return dropped


async def balances(session: AsyncSession, rule_ids: Iterable[int]) -> dict[int, QuotaBalance]:
    """What the rebalancer last decided on these limits."""
    query = select(QuotaBalance).where(QuotaBalance.rule_id.in_(list(rule_ids)))
    return {row.rule_id: row for row in await session.scalars(query)}


async def store_balance(
    session: AsyncSession, rule_id: int, *, moved: bool, reason: str, demand: Mapping[str, float]
) -> None:
    """Keep what the rebalancer decided."""
    values = {"at": func.now(), "moved": moved, "reason": reason, "demand": dict(demand)}
    statement = insert(QuotaBalance).values(rule_id=rule_id, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["rule_id"], set_=values))


async def auto_limits(session: AsyncSession) -> Sequence[LimitRow]:
    """Limits whose shares follow demand."""
    return (await session.scalars(select(LimitRow).where(LimitRow.auto_shares).order_by(LimitRow.rule_id))).all()


async def limit_of(session: AsyncSession, rule_id: int) -> LimitRow | None:
    """The limit with this rule id."""
    return await session.scalar(select(LimitRow).where(LimitRow.rule_id == rule_id))
