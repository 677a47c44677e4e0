"""The job that deletes ended blocks and overrides; nodes end them by themselves."""

from control_plane.database import Database
from control_plane.enforcement import repository
from control_plane.jobs.registry import Job
from control_plane.publishing.writer import ConfigWriter

EVERY_S = 60.0
AUTHOR = "job:ended-blocks"


def ended_blocks_job(database: Database, writer: ConfigWriter) -> Job:
    """Delete blocks and enforcement overrides that have ended."""

    async def idle() -> bool:
        async with database.read() as session:
            return not await repository.any_ended(session)

    async def run() -> str:
        if await idle():
            return "Nothing had ended."
        async with writer.begin(AUTHOR, "their time is over") as write:
            ended = await repository.delete_ended(write.session)
            for key in ended:
                write.withdraw(key)
        lifted = sum(key.kind == "block" for key in ended)
        return f"Forgot {lifted} blocks and {len(ended) - lifted} enforcement overrides."

    return Job("ended-blocks", EVERY_S, run, idle=idle)
