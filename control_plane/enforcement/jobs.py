"""The job that deletes ended blocks and overrides; nodes end them by themselves."""

from control_plane.blocks import repository as ended_blocks
from control_plane.blocks import service as blocks
from control_plane.database import Database
from control_plane.enforcement import repository as ended_overrides
from control_plane.enforcement import service as overrides
from control_plane.jobs.registry import Job
from control_plane.publishing.writer import ConfigWriter

EVERY_S = 60.0
AUTHOR = "job:ended-blocks"


def ended_blocks_job(database: Database, writer: ConfigWriter) -> Job:
    """Delete blocks and enforcement overrides that have ended."""

    async def run() -> str:
        async with database.read() as session:
            if not (await ended_blocks.any_ended(session) or await ended_overrides.any_ended(session)):
                return "Nothing had ended."
        async with writer.begin(AUTHOR, "their time is over") as write:
            lifted = await blocks.forget_expired(write)
            ended = await overrides.forget_expired(write)
        return f"Forgot {lifted} blocks and {ended} enforcement overrides."

    return Job("ended-blocks", EVERY_S, run)
