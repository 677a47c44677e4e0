"""Queries on nodes: which are connected, what they applied, refused and decided."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, delete, func, not_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.nodes.models import Node, NodeEffect, NodeReportRow
from tidegate.contract.config import Ack
from tidegate.contract.status import Hello

ACK_CHANNEL = "tidegate_acks"
MISSED_HEARTBEATS = 3


class RegionAck(NamedTuple):
    """A node's answer, and the region whose credential it came with."""

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
    """A node that got a stage's revision: ``applied`` it and is gone, or has not answered; ``since`` then."""

    region: str
    node: str
    applied: bool
    since: datetime


def is_connected(heartbeat_s: float) -> ColumnElement[bool]:
    """True for a node whose stream is open; one of a crashed replica ages out."""
    return Node.stream.is_not(None) & (Node.last_seen > func.now() - timedelta(seconds=MISSED_HEARTBEATS * heartbeat_s))


async def stream_opened(session: AsyncSession, hello: Hello, stream: str, *, applied: int) -> None:
    """Record a node's new stream; it replaces an older one of the same node."""
    values = {"role": hello.role, "version": hello.version, "stream": stream, "last_seen": func.now(),
              "opened_at": func.now(), "applied_revision": applied}  # fmt: skip
    statement = insert(Node).values(region=hello.region, node=hello.node, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["region", "node"], set_=values))
    await session.execute(select(func.pg_notify(ACK_CHANNEL, "")))


async def stage_sent(session: AsyncSession, hello: Hello, stage_revision: int) -> None:
    """The node is about to be sent this stage of a roll-out. A second time says nothing new."""
    new = Node.staged_revision.is_distinct_from(stage_revision)
    statement = update(Node).where(Node.region == hello.region, Node.node == hello.node, new)
    await session.execute(statement.values(staged_revision=stage_revision, staged_at=func.now()))


async def streams_alive(session: AsyncSession, streams: Iterable[str]) -> None:
    """Refresh the nodes behind these open streams."""
    await session.execute(update(Node).where(Node.stream.in_(list(streams))).values(last_seen=func.now()))


async def streams_closed(session: AsyncSession, streams: Iterable[str]) -> None:
    """The nodes behind these streams are disconnected, unless they opened another since."""
    await session.execute(update(Node).where(Node.stream.in_(list(streams))).values(stream=None))
    await session.execute(select(func.pg_notify(ACK_CHANNEL, "")))


async def acknowledged(session: AsyncSession, acks: Sequence[RegionAck]) -> None:
    """Record what nodes say of revisions, and wake who waits for it.

    An ACK may come late, or again for what it says of cuts: it takes back nothing that a newer one said.
    """
    good = [one for one in acks if one.ack.error is None]
    newest_last = sorted(good, key=lambda one: one.ack.revision)
    applied = {(one.region, one.ack.node): one.ack.revision for one in newest_last}
    refused = {(one.region, one.ack.node): one.ack for one in acks if one.ack.error is not None}
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
    # a refusal is history once something at least as new was applied
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
        for rule_id, from_us in sorted(one.ack.effective.items())
    ]  # fmt: skip
    if not rows:
        return
    statement = insert(NodeEffect)
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["region", "node", "rule_id"],
        set_={"revision": new.revision, "from_us": new.from_us},
        where=NodeEffect.revision <= new.revision,
    )
    await session.execute(statement, rows)


async def effects(session: AsyncSession, rule_id: int, since_revision: int) -> dict[str, int]:
    """By region, the latest instant that its nodes said for this limit with a revision from ``since_revision`` on."""
    query = select(NodeEffect.region, func.max(NodeEffect.from_us)).group_by(NodeEffect.region)
    query = query.where(NodeEffect.rule_id == rule_id, NodeEffect.revision >= since_revision)
    return {region: from_us for region, from_us in await session.execute(query)}  # noqa: C416  rows are no pairs


async def forget_effects(session: AsyncSession, rule_id: int) -> None:
    """A move is complete: what nodes said of it is of no more use."""
    await session.execute(delete(NodeEffect).where(NodeEffect.rule_id == rule_id))


async def regions_with_nodes(session: AsyncSession) -> set[str]:
    """Regions of which any node is known, connected or not."""
    return set(await session.scalars(select(Node.region).distinct()))


async def refusal_since(session: AsyncSession, revision: int, region: str, node: str) -> str | None:
    """Which node of a stage refused ``revision`` or a newer one, and why; an empty ``node`` means the whole region."""
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
    """Those that decide: agents do not."""
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
    """What nodes decided in some time."""

    decisions: int
    denied: int
    degraded: int


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


async def end_lost(session: AsyncSession, heartbeat_s: float) -> int:
    """Note that nodes are not connected whose replica died; says how many."""
    lost = update(Node).where(Node.stream.is_not(None), ~is_connected(heartbeat_s)).values(stream=None)
    return len((await session.scalars(lost.returning(Node.node))).all())


async def forget_unseen(session: AsyncSession, days: int) -> int:
    """Forget nodes that were not seen for so long, but for the last of a region; says how many."""
    last = select(Node.region, func.max(Node.last_seen).label("at")).group_by(Node.region).subquery()
    old = Node.last_seen < func.now() - timedelta(days=days)
    others = select(last.c.at).where(last.c.region == Node.region).scalar_subquery()
    gone = delete(Node).where(old, Node.stream.is_(None), Node.last_seen < others)
    forgotten = (await session.execute(gone.returning(Node.region, Node.node))).all()
    for region, node in forgotten:
        await session.execute(delete(NodeEffect).where(NodeEffect.region == region, NodeEffect.node == node))
    return len(forgotten)


async def count_connected(session: AsyncSession, heartbeat_s: float) -> int:
    """How many nodes and agents are connected."""
    return await session.scalar(select(func.count()).select_from(Node).where(is_connected(heartbeat_s))) or 0
