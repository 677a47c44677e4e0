"""When tokens were last used: kept in memory, and written once in a while for all of them together."""

import asyncio
from datetime import UTC, datetime

import structlog

from control_plane.credentials.tokens import repository
from control_plane.database import Database
from control_plane.errors import UnavailableError

WRITE_EVERY_S = 60.0
_log = structlog.stdlib.get_logger("tidegate.access")


class LastUsed:
    """At most one write a minute and token, whatever the number of requests. Bounded by the number of live tokens."""

    def __init__(self) -> None:
        self._seen: dict[str, datetime] = {}

    def note(self, token_id: str) -> None:
        """This token was used now."""
        if token_id:
            self._seen[token_id] = datetime.now(UTC)

    async def run(self, database: Database) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write(database)

    async def write(self, database: Database) -> None:
        """Write what was noted; where the database is away, with the next one."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            async with database.transaction() as session:
                await repository.note_used(session, seen)
        except UnavailableError as error:
            self._seen = {**seen, **self._seen}
            _log.warning("when tokens were last used must wait for the database", cause=repr(error.__cause__))
