"""Finds out whether Postgres still answers: a closed server refuses at once, a hanging one does not answer.

Commands may take ten seconds, so their timeouts are too long for that. A connection of its own asks a short query again
and again; once that stays unanswered, all who wait for Postgres are released.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from control_plane.errors import UnavailableError

ASK_EVERY_S = 0.5
MISS_S = 1.0
MISSES = 2
"""Two waits instead of a long one: a loop that was busy itself finds the answer after the second."""
_log = structlog.stdlib.get_logger("tidegate.database")


class DatabaseWatchdog:
    """``unreachable`` from about 2.5 s after Postgres' last answer until the next one."""

    def __init__(self) -> None:
        self.unreachable = False
        self._waiting: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def guarding(self) -> AsyncIterator[None]:
        """Raise :class:`UnavailableError` while Postgres is unreachable: at once, or in the middle of the block."""
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
        """Ask until the connection closes or stays unanswered; then terminate it."""
        try:
            while not connection.is_closed():
                if not await self._answered(connection):
                    return
                self.unreachable = False
                await asyncio.sleep(ASK_EVERY_S)
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
            self._release()
            return False
        finally:
            if not question.done():
                connection.terminate()  # otherwise asyncpg would connect again to cancel the query
                await asyncio.gather(question, return_exceptions=True)

    def _release(self) -> None:
        _log.warning("the database does not answer", waiting=len(self._waiting))
        self.unreachable = True
        now = asyncio.get_running_loop().time()
        for cut in self._waiting:
            cut.reschedule(now)
