"""The job that deletes ended blocks and overrides; nodes end them by themselves."""

from sqlalchemy.orm import InstrumentedAttribute

from control_plane.blocks.models import BlockRow
from control_plane.blocks.service import Blocks
from control_plane.database import Database
from control_plane.enforcement import repository
from control_plane.enforcement.models import EnforcementRow
from control_plane.enforcement.service import EnforcementOverrides
from control_plane.jobs.registry import Job
from control_plane.publishing.writer import ConfigWriter
from control_plane.web.etags import Preconditions

EVERY_S = 60.0
A_WRITE = 500
WRITES_A_RUN = 40
AUTHOR = "job:ended-blocks"


def ended_blocks_job(database: Database, writer: ConfigWriter) -> Job:
    """Delete blocks and enforcement overrides that have ended."""

    async def idle() -> bool:
        async with database.read() as session:
            return not await repository.any_ended(session)

    async def run() -> str:
        if await idle():
            return "Nothing had ended."
        lifted = await _all(writer, Blocks(), BlockRow.block)
        reset = await _all(writer, EnforcementOverrides(), EnforcementRow.target)
        return f"Forgot {lifted} blocks and {reset} enforcement overrides."

    return Job("ended-blocks", EVERY_S, run, idle=idle)


async def _all(writer: ConfigWriter, resource: Blocks | EnforcementOverrides, name: InstrumentedAttribute[str]) -> int:
    deleted = 0
    for _ in range(WRITES_A_RUN):
        async with writer.begin(AUTHOR, "their time is over") as write:
            ended = await repository.ended(write.session, name, A_WRITE)
            for one in ended:
                await resource.delete(write, one, Preconditions())
        deleted += len(ended)
        if len(ended) < A_WRITE:
            break
    return deleted
