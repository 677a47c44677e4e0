"""Priorities of writes: a trial gives way to every write that it blocks, and a long write to an urgent one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.errors import UnavailableError

LOOK_EVERY_S = 0.25
"""Below Postgres' deadlock_timeout (1 s), so that a trial gives way before Postgres ends a write."""
LONG_WRITE_S = 1.0
URGENT = "tidegate-urgent"
"""The name of a waiting urgent write in ``pg_stat_activity``, where other replicas see it."""
_MY_PID = text("SELECT pg_backend_pid()")
_AM_URGENT = text("SELECT set_config('application_name', :name, true)")
_BLOCKS_ANYBODY = text("""
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
               AND :pid = ANY(pg_blocking_pids(pid)))
""")
_URGENT_WAITS = text("""
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
               AND application_name = :name)
""")


async def say_urgent(session: AsyncSession) -> None:
    """Show holders of the head's lock, in every replica, that an urgent write waits."""
    await session.execute(_AM_URGENT, {"name": URGENT})


@asynccontextmanager
async def giving_way_to_all(database: Database, session: AsyncSession) -> AsyncIterator[None]:
    """End the block with :class:`UnavailableError` as soon as another session waits for a lock of this one."""
    pid = await session.scalar(_MY_PID)
    async with _ended_when(database, _BLOCKS_ANYBODY, {"pid": pid}, after_s=0.0):
        yield


@asynccontextmanager
async def giving_way_to_urgent(database: Database) -> AsyncIterator[None]:
    """End the block with :class:`UnavailableError` once it has lasted a second and an urgent write waits."""
    async with _ended_when(database, _URGENT_WAITS, {"name": URGENT}, after_s=LONG_WRITE_S):
        yield


@asynccontextmanager
async def _ended_when(
    database: Database, question: TextClause, parameters: dict[str, object], *, after_s: float
) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(None) as cut:
            looking = asyncio.create_task(_look(database, question, parameters, cut, after_s))
            try:
                yield
            finally:
                looking.cancel()
    except TimeoutError as error:
        if cut.expired():
            raise UnavailableError("This gave way to a write that could not wait. Nothing was changed.") from error
        raise


async def _look(
    database: Database, question: TextClause, parameters: dict[str, object], cut: asyncio.Timeout, after_s: float
) -> None:
    await asyncio.sleep(after_s)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            async with database.read(reserved=True) as session:
                if await session.scalar(question, parameters):
                    cut.reschedule(asyncio.get_running_loop().time())
                    return
        except UnavailableError:
            continue  # the holder of the lock finds out itself that the database is unreachable
