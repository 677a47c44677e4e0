"""Derives all further changes of a write: one function, read from top to bottom."""

from control_plane.enforcement.cascade import cascade
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas.scheduling import schedule_shares
from control_plane.quotas.service import redistribute
from control_plane.schedule import now_us


async def derive(write: ConfigWrite) -> None:
    """Publish, withdraw and record what follows from a write. Each step runs once and sees the steps before it."""
    await redistribute(write)
    await schedule_shares(write, now_us())
    await cascade(write)
