"""The job that marks nodes as gone, and later forgets them."""

from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.nodes import repository

EVERY_S = 15.0


def liveness_job(database: Database, heartbeat_s: float, forget_after_days: int) -> Job:
    """Mark nodes of crashed replicas as disconnected, and forget nodes not seen for long, except a region's last one.

    That one stays because it may still decide: what it owns of a ``strict`` limit is given to nobody without its word.
    """

    async def idle() -> bool:
        async with database.read() as session:
            return not await repository.any_lost_or_unseen(session, heartbeat_s, forget_after_days)

    async def run() -> str:
        async with database.transaction() as session:
            lost = await repository.end_lost(session, heartbeat_s)
            forgotten = await repository.forget_unseen(session, forget_after_days)
            connected = await repository.count_connected(session, heartbeat_s)
        return f"{connected} nodes are connected; {lost} were lost, {forgotten} forgotten."

    return Job("node-liveness", EVERY_S, run, idle=idle)
