"""Queries on roll-outs, their policy, and what nodes report of their decisions."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from control_plane.rollout.models import NodeReportRow, RolloutPolicy, RolloutRow
from control_plane.rollout.nodes import ConnectedNode

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


class Decided(NamedTuple):
    """What nodes decided in some time."""

    decisions: int
    denied: int
    degraded: int


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
    """Every node of the stage has applied it, as of now."""
    statement = update(RolloutRow).where(RolloutRow.number == number, RolloutRow.acked_at.is_(None))
    await session.execute(statement.values(acked_at=func.now()))


async def before(
    session: AsyncSession, number: int | None, count: int, where: Sequence[ColumnElement[bool]] = ()
) -> Sequence[RolloutRow]:
    """The newest roll-outs for which ``where`` holds, below ``number`` if given."""
    query = select(RolloutRow).where(*where).order_by(RolloutRow.number.desc()).limit(count)
    return (await session.scalars(query if number is None else query.where(RolloutRow.number < number))).all()


async def store_reports(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Keep what nodes reported."""
    await session.execute(insert(NodeReportRow).on_conflict_do_nothing(), rows)


async def decided(
    session: AsyncSession, nodes: Iterable[ConnectedNode], since: datetime, until: datetime | None = None
) -> Decided:
    """What these nodes decided in reports that came after ``since``, up to ``until``."""
    names = [(node.region, node.node) for node in nodes]
    sums = [func.coalesce(func.sum(column), 0) for column in
            (NodeReportRow.decisions, NodeReportRow.denied, NodeReportRow.degraded)]  # fmt: skip
    query = select(*sums).where(tuple_(NodeReportRow.region, NodeReportRow.node).in_(names), NodeReportRow.at > since)
    if until is not None:
        query = query.where(NodeReportRow.at <= until)
    return Decided(*(int(figure) for figure in (await session.execute(query)).one()))


async def forget_reports(session: AsyncSession, before: datetime) -> int:
    """Drop old reports; says how many."""
    dropped = await session.scalars(delete(NodeReportRow).where(NodeReportRow.at < before).returning(NodeReportRow.at))
    return len(dropped.all())
