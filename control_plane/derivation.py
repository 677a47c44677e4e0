"""What follows from the documents of a write, whoever made it: one function, read from top to bottom."""

from control_plane.enforcement.cascade import cascade
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas.scheduling import schedule_shares
from control_plane.quotas.service import redistribute
from control_plane.schedule import now_us


async def derive(write: ConfigWrite) -> None:
    """Publish, withdraw and record what follows. Each step sees what the ones before it left, and runs once."""
    await redistribute(write)
    await schedule_shares(write, now_us())
    await cascade(write)
