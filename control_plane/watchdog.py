"""Whether Postgres still answers. One that is closed says so at once; one that hangs says nothing.

A command may well take ten seconds, so its own timeout tells too late. Instead a tiny question is asked again and again
on a connection that does nothing long, and once it stays unanswered everybody who waits is let go.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from control_plane.errors import UnavailableError

BEAT_S = 0.5
MISS_S = 1.0
MISSES = 2
"""Two waits and not one of twice the length: a loop that was busy itself finds the answer at the second look."""
_log = structlog.stdlib.get_logger("tidegate.database")


class DatabaseWatchdog:
    """``silent`` once a question stayed unanswered (about 2.5 s after the last sign of life), until the next answer."""

    def __init__(self) -> None:
        self.unreachable = False
        self._waiting: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def guarding(self) -> AsyncIterator[None]:
        """Raise :class:`UnavailableError` while Postgres is silent: at once, or in the middle of the block."""
        if self.unreachable:
            raise UnavailableError("The database does not answer.")
        try:
            async with asyncio.timeout(None) as cut:
                self._waiting.add(cut)
                try:
                    yield
                finally:
                    self._waiting.discard(cut)
        except TimeoutError as error:
            if cut.expired():
                raise UnavailableError("The database does not answer.") from error
            raise

    async def watch(self, connection: asyncpg.Connection) -> None:
        """Ask until the connection closes or says nothing more; it is terminated then."""
        try:
            while not connection.is_closed():
                if not await self._answered(connection):
                    return
                self.unreachable = False
                await asyncio.sleep(BEAT_S)
        finally:
            connection.terminate()

    async def _answered(self, connection: asyncpg.Connection) -> bool:
        question = asyncio.ensure_future(connection.execute("SELECT 1", timeout=2 * MISSES * MISS_S))
        try:
            for _ in range(MISSES):
                await asyncio.wait({question}, timeout=MISS_S)
            if question.done():
                await question
                return True
            self._let_go()
            return False
        finally:
            if not question.done():
                connection.terminate()  # else asyncpg would dial once more to have the question cancelled
                await asyncio.gather(question, return_exceptions=True)

    def _let_go(self) -> None:
        _log.warning("the database is silent", waiting=len(self._waiting))
        self.unreachable = True
        now = asyncio.get_running_loop().time()
        for cut in self._waiting:
            cut.reschedule(now)
