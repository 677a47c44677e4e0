"""Queries on nodes: which are connected, what they applied, refused and decided."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, delete, func, not_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.nodes.models import Node, NodeEffect, NodeReportRow
from tidegate.contract.config import Ack
from tidegate.contract.status import Hello

ACK_CHANNEL = "tidegate_acks"
MISSED_HEARTBEATS = 3


class RegionAck(NamedTuple):
    """A node's ACK, and the region of its credential."""

    region: str
    ack: Ack


class ConnectedNode(NamedTuple):
    """A node whose stream is open, and what it applied."""

    region: str
    node: str
    applied_revision: int
    opened_at: datetime | None = None
    """Since when its stream is open."""
    role: str = "node"


class MissingNode(NamedTuple):
    """A node that got a stage's revision and is gone (``applied``) or has not answered, since ``since``."""

    region: str
    node: str
    applied: bool
    since: datetime


def is_connected(heartbeat_s: float) -> ColumnElement[bool]:
    """A condition for connected nodes; those of a crashed replica age out."""
    return Node.stream.is_not(None) & (Node.last_seen > func.now() - timedelta(seconds=MISSED_HEARTBEATS * heartbeat_s))


async def stream_opened(session: AsyncSession, hello: Hello, stream: str, *, applied: int) -> None:
    """Record a node's new stream; it replaces an older one of the same node."""
    values = {"role": hello.role, "version": hello.version, "stream": stream, "last_seen": func.now(),
              "opened_at": func.now(), "applied_revision": applied}  # fmt: skip
    statement = insert(Node).values(region=hello.region, node=hello.node, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["region", "node"], set_=values))
    await session.execute(select(func.pg_notify(ACK_CHANNEL, "")))


async def stage_sent(session: AsyncSession, hello: Hello, stage_revision: int) -> None:
    """Note that a node is about to be sent this stage of a roll-out; repeating it changes nothing."""
    new = Node.staged_revision.is_distinct_from(stage_revision)
    statement = update(Node).where(Node.region == hello.region, Node.node == hello.node, new)
    await session.execute(statement.values(staged_revision=stage_revision, staged_at=func.now()))


async def streams_seen(session: AsyncSession, is_open: Sequence[str], closed: Sequence[str]) -> None:
    """Refresh the nodes of open streams, and mark those of closed ones as disconnected unless they opened another."""
    await _lock(session, Node.stream.in_([*is_open, *closed]))
    await session.execute(update(Node).where(Node.stream.in_(is_open)).values(last_seen=func.now()))
    if closed:
        await session.execute(update(Node).where(Node.stream.in_(closed)).values(stream=None))
        await session.execute(select(func.pg_notify(ACK_CHANNEL, "")))


async def _lock(session: AsyncSession, where: ColumnElement[bool]) -> None:
    """Lock nodes in one order, all that a transaction will write, or each of two writers could wait for the other."""
    await session.execute(select(Node.node).where(where).order_by(Node.region, Node.node).with_for_update())


async def acknowledged(session: AsyncSession, acks: Sequence[RegionAck]) -> None:
    """Record ACKs, and wake those who wait for them.

    An ACK that comes late, or again for its instants of share cuts, undoes nothing of a newer one.
    """
    good = [one for one in acks if one.ack.error is None]
    newest_last = sorted(good, key=lambda one: one.ack.revision)
    applied = {(one.region, one.ack.node): one.ack.revision for one in newest_last}
    refused = {(one.region, one.ack.node): one.ack for one in acks if one.ack.error is not None}
    await _lock(session, tuple_(Node.region, Node.node).in_([*applied, *refused]))
    if applied:
        await _store_applied(session, applied)
        await _store_effects(session, newest_last)
    if refused:
        await _store_refused(session, refused)
    await session.execute(select(func.pg_notify(ACK_CHANNEL, "")))


async def _store_applied(session: AsyncSession, revisions: Mapping[tuple[str, str], int]) -> None:
    rows = [
        {"region": region, "node": node, "applied_revision": revision, "applied_at": func.now(),
         "last_seen": func.now()}
        for (region, node), revision in sorted(revisions.items())
    ]  # fmt: skip
    statement = insert(Node).values(rows)
    new = statement.excluded
    # a refusal ends once a revision at least as new is applied
    stale = Node.refused_revision <= new.applied_revision
    awaited = Node.staged_revision <= new.applied_revision
    late = Node.applied_revision > new.applied_revision
    values = {
        "applied_revision": func.greatest(Node.applied_revision, new.applied_revision),
        "applied_at": case((late, Node.applied_at), else_=new.applied_at),
        "last_seen": new.last_seen,
        "refused_revision": case((stale, None), else_=Node.refused_revision),
        "refused_reason": case((stale, None), else_=Node.refused_reason),
        "staged_at": case((awaited, None), else_=Node.staged_at),
    }
    await session.execute(statement.on_conflict_do_update(index_elements=["region", "node"], set_=values))


async def _store_refused(session: AsyncSession, acks: Mapping[tuple[str, str], Ack]) -> None:
    rows = [
        {"region": region, "node": node, "refused_revision": ack.revision, "refused_reason": ack.error,
         "last_seen": func.now()}
        for (region, node), ack in sorted(acks.items())
    ]  # fmt: skip
    statement = insert(Node).values(rows)
    new = statement.excluded
    values = {name: getattr(new, name) for name in ("refused_revision", "refused_reason", "last_seen")}
    await session.execute(statement.on_conflict_do_update(index_elements=["region", "node"], set_=values))


async def _store_effects(session: AsyncSession, acks: Sequence[RegionAck]) -> None:
    rows = [
        {"region": one.region, "node": one.ack.node, "rule_id": rule_id, "revision": one.ack.revision,
         "from_us": from_us}
        for one in acks
        for rule_id, from_us in one.ack.effective.items()
    ]  # fmt: skip
    if not rows:
        return
    rows.sort(key=itemgetter("region", "node", "rule_id", "revision"))  # the order in which a row is locked
    statement = insert(NodeEffect)
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["region", "node", "rule_id"],
        set_={"revision": new.revision, "from_us": new.from_us},
        where=NodeEffect.revision <= new.revision,
    )
    await session.execute(statement, rows)


async def effects(session: AsyncSession, rule_id: int, since_revision: int) -> dict[str, int]:
    """By region, the latest instant that its nodes confirmed for this limit, since revision ``since_revision``."""
    query = select(NodeEffect.region, func.max(NodeEffect.from_us)).group_by(NodeEffect.region)
    query = query.where(NodeEffect.rule_id == rule_id, NodeEffect.revision >= since_revision)
    return {region: from_us for region, from_us in await session.execute(query)}  # noqa: C416  rows are no pairs


async def forget_effects(session: AsyncSession, rule_id: int) -> None:
    """Delete what nodes confirmed of a completed move."""
    of_rule = select(NodeEffect.rule_id).where(NodeEffect.rule_id == rule_id)
    await session.execute(of_rule.order_by(NodeEffect.region, NodeEffect.node).with_for_update())
    await session.execute(delete(NodeEffect).where(NodeEffect.rule_id == rule_id))


async def regions_with_nodes(session: AsyncSession) -> set[str]:
    """Regions with a known node, connected or not."""
    return set(await session.scalars(select(Node.region).distinct()))


async def refusal_since(session: AsyncSession, revision: int, region: str, node: str) -> str | None:
    """The node of a stage that refused ``revision`` or a newer one, and why; empty ``node``: the whole region."""
    query = select(Node.node, Node.refused_revision, Node.refused_reason).where(
        Node.region == region, Node.refused_revision >= revision
    )
    row = (await session.execute(query if not node else query.where(Node.node == node))).first()
    return None if row is None else f"{region}/{row.node} refused revision {row.refused_revision}: {row.refused_reason}"


async def missing(
    session: AsyncSession, stage_revision: int, region: str, node: str, heartbeat_s: float
) -> Sequence[MissingNode]:
    """Nodes of a stage that got it, and are gone or have not applied it. An empty ``node`` means the whole region."""
    applied = Node.applied_revision >= stage_revision
    unanswered = (Node.staged_revision == stage_revision) & Node.staged_at.is_not(None) & not_(applied)
    gone = applied & not_(is_connected(heartbeat_s))
    since = case((applied, Node.last_seen), else_=Node.staged_at)
    query = select(Node.region, Node.node, applied, since).where(
        Node.region == region, Node.role == "node", unanswered | gone
    )
    query = query if not node else query.where(Node.node == node)
    return [MissingNode(*row) for row in await session.execute(query.order_by(Node.node))]


async def connected(session: AsyncSession, heartbeat_s: float) -> Sequence[ConnectedNode]:
    """Every connected node and agent."""
    query = select(Node.region, Node.node, Node.applied_revision, Node.opened_at, Node.role).where(
        is_connected(heartbeat_s)
    )
    return [ConnectedNode(*row) for row in await session.execute(query.order_by(Node.region, Node.node))]


def deciding(connected: Sequence[ConnectedNode]) -> Sequence[ConnectedNode]:
    """Connected nodes without agents."""
    return [node for node in connected if node.role == "node"]


async def behind(session: AsyncSession, revision: int, heartbeat_s: float) -> int:
    """How many connected nodes have not applied ``revision`` or a newer one."""
    query = select(func.count()).select_from(Node).where(is_connected(heartbeat_s), Node.applied_revision < revision)
    return await session.scalar(query) or 0


async def page(
    session: AsyncSession,
    heartbeat_s: float,
    after: tuple[str, str] | None,
    count: int,
    where: Sequence[ColumnElement[bool]] = (),
) -> Sequence[tuple[Node, bool]]:
    """Nodes by region and name for which ``where`` holds, each with whether it is connected."""
    query = select(Node, is_connected(heartbeat_s)).where(*where).order_by(Node.region, Node.node).limit(count)
    if after is not None:
        query = query.where(tuple_(Node.region, Node.node) > tuple_(*after))
    return [(node, connected) for node, connected in await session.execute(query)]


class Decided(NamedTuple):
    """Decisions of nodes in a period."""

    decisions: int
    denied: int
    degraded: int


async def store_reports(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Store reports of nodes."""
    await session.execute(insert(NodeReportRow).on_conflict_do_nothing(), rows)


async def decided(
    session: AsyncSession, nodes: Iterable[ConnectedNode], since: datetime, until: datetime | None = None
) -> Decided:
    """Decisions of these nodes in reports received after ``since``, up to ``until``."""
    names = [(node.region, node.node) for node in nodes]
    sums = [func.coalesce(func.sum(column), 0) for column in
            (NodeReportRow.decisions, NodeReportRow.denied, NodeReportRow.degraded)]  # fmt: skip
    query = select(*sums).where(tuple_(NodeReportRow.region, NodeReportRow.node).in_(names), NodeReportRow.at > since)
    if until is not None:
        query = query.where(NodeReportRow.at <= until)
    return Decided(*(int(figure) for figure in (await session.execute(query)).one()))


async def forget_reports(session: AsyncSession, before: datetime) -> int:
    """Delete old reports. Returns how many."""
    dropped = await session.scalars(delete(NodeReportRow).where(NodeReportRow.at < before).returning(NodeReportRow.at))
    return len(dropped.all())


async def any_lost_or_unseen(session: AsyncSession, heartbeat_s: float, days: int) -> bool:
    """Whether there are nodes for :func:`end_lost` or :func:`forget_unseen`."""
    found = select(Node.node).where(_is_lost(heartbeat_s) | _is_unseen(days))
    return bool(await session.scalar(select(found.exists())))


def _is_lost(heartbeat_s: float) -> ColumnElement[bool]:
    return Node.stream.is_not(None) & ~is_connected(heartbeat_s)


def _is_unseen(days: int) -> ColumnElement[bool]:
    last = select(Node.region, func.max(Node.last_seen).label("at")).group_by(Node.region).subquery()
    others = select(last.c.at).where(last.c.region == Node.region).scalar_subquery()
    return and_(Node.last_seen < func.now() - timedelta(days=days), Node.stream.is_(None), Node.last_seen < others)


async def end_lost(session: AsyncSession, heartbeat_s: float) -> int:
    """Mark nodes of crashed replicas as disconnected. Returns how many."""
    is_lost = _is_lost(heartbeat_s)
    await _lock(session, is_lost)
    lost = update(Node).where(is_lost).values(stream=None)
    return len((await session.scalars(lost.returning(Node.node))).all())


async def forget_unseen(session: AsyncSession, days: int) -> int:
    """Forget nodes not seen for that long, except a region's last one. Returns how many."""
    gone = delete(Node).where(_is_unseen(days))
    forgotten = (await session.execute(gone.returning(Node.region, Node.node))).all()
    for region, node in sorted(forgotten):
        await session.execute(delete(NodeEffect).where(NodeEffect.region == region, NodeEffect.node == node))
    return len(forgotten)


async def count_connected(session: AsyncSession, heartbeat_s: float) -> int:
    """How many nodes and agents are connected."""
    return await session.scalar(select(func.count()).select_from(Node).where(is_connected(heartbeat_s))) or 0
