"""Queries on nodes: which are connected, what they applied, what they refused."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, case, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contract.config import Ack
from contract.status import Hello
from control_plane.rollout.models import Node

ACK_CHANNEL = "tidegate_acks"
MISSED_HEARTBEATS = 3


def is_connected(heartbeat_s: float) -> ColumnElement[bool]:
    """True for a node whose stream is open; one of a crashed replica ages out."""
    return Node.stream.is_not(None) & (Node.last_seen > func.now() - timedelta(seconds=MISSED_HEARTBEATS * heartbeat_s))


async def stream_opened(session: AsyncSession, hello: Hello, stream: str, *, applied: int) -> None:
    """Record a node's new stream; it replaces an older one of the same node."""
    values = {"version": hello.version, "stream": stream, "last_seen": func.now(), "applied_revision": applied}
    statement = insert(Node).values(region=hello.region, node=hello.node, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["region", "node"], set_=values))
    await session.execute(select(func.pg_notify(ACK_CHANNEL, "")))


async def streams_alive(session: AsyncSession, streams: Iterable[str]) -> None:
    """Refresh the nodes behind these open streams."""
    await session.execute(update(Node).where(Node.stream.in_(list(streams))).values(last_seen=func.now()))


async def streams_closed(session: AsyncSession, streams: Iterable[str]) -> None:
    """The nodes behind these streams are disconnected, unless they opened another since."""
    await session.execute(update(Node).where(Node.stream.in_(list(streams))).values(stream=None))
    await session.execute(select(func.pg_notify(ACK_CHANNEL, "")))


async def acknowledged(session: AsyncSession, region: str, ack: Ack) -> None:
    """Record what a node says of a revision, and wake who waits for it."""
    if ack.error is None:
        values = {"applied_revision": ack.revision, "applied_at": func.now(), "last_seen": func.now()}
        # a refusal is history once something at least as new was applied
        stale = Node.refused_revision <= ack.revision
        cleared = {
            "refused_revision": case((stale, None), else_=Node.refused_revision),
            "refused_reason": case((stale, None), else_=Node.refused_reason),
        }
    else:
        values = {"refused_revision": ack.revision, "refused_reason": ack.error, "last_seen": func.now()}
        cleared = {}
    statement = insert(Node).values(region=region, node=ack.node, **values)
    statement = statement.on_conflict_do_update(index_elements=["region", "node"], set_={**values, **cleared})
    await session.execute(statement)
    await session.execute(select(func.pg_notify(ACK_CHANNEL, "")))


async def behind(session: AsyncSession, revision: int, heartbeat_s: float) -> int:
    """How many connected nodes have not applied ``revision`` or a newer one."""
    query = select(func.count()).select_from(Node).where(is_connected(heartbeat_s), Node.applied_revision < revision)
    return await session.scalar(query) or 0


async def page(
    session: AsyncSession, heartbeat_s: float, after: tuple[str, str] | None, count: int
) -> Sequence[tuple[Node, bool]]:
    """Nodes by region and name, each with whether it is connected."""
    query = select(Node, is_connected(heartbeat_s)).order_by(Node.region, Node.node).limit(count)
    if after is not None:
        query = query.where(tuple_(Node.region, Node.node) > tuple_(*after))
    return [(node, connected) for node, connected in await session.execute(query)]
