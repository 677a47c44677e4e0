"""The job that says which nodes are gone, and in the end forgets them."""

from datetime import timedelta

from sqlalchemy import delete, func, select, update

from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.nodes.models import Node, NodeEffect
from control_plane.nodes.repository import is_connected

EVERY_S = 15.0


def liveness_job(database: Database, heartbeat_s: float, forget_after_days: int) -> Job:
    """Mark nodes whose replica died, and forget those that were not seen for long, but for the last of a region.

    That one stays because it may still decide: what it owns of a ``strict`` limit is given to nobody without its word.
    """

    async def run() -> str:
        async with database.transaction() as session:
            lost = update(Node).where(Node.stream.is_not(None), ~is_connected(heartbeat_s)).values(stream=None)
            lost_nodes = (await session.scalars(lost.returning(Node.node))).all()
            last = select(Node.region, func.max(Node.last_seen).label("at")).group_by(Node.region).subquery()
            old = Node.last_seen < func.now() - timedelta(days=forget_after_days)
            others = select(last.c.at).where(last.c.region == Node.region).scalar_subquery()
            gone = delete(Node).where(old, Node.stream.is_(None), Node.last_seen < others)
            forgotten = (await session.execute(gone.returning(Node.region, Node.node))).all()
            for region, node in forgotten:
                await session.execute(delete(NodeEffect).where(NodeEffect.region == region, NodeEffect.node == node))
            connected = await session.scalar(select(func.count()).select_from(Node).where(is_connected(heartbeat_s)))
        return f"{connected} nodes are connected; {len(lost_nodes)} were lost, {len(forgotten)} forgotten."

    return Job("node-liveness", EVERY_S, run)
