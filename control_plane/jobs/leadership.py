"""Leadership: one replica leads, by an advisory lock on a connection of its own.

The lock lives as long as the connection, so a killed leader loses it at once. Where the network is cut, the leader asks
every ``CHECK_S``, finds out first, and stops. Postgres finds out by TCP keep-alive a few seconds later, and only then
another replica can win. The connection must not go through a pooler that shares it.
"""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import structlog

from control_plane.database import KEEP_ALIVE, Database, translated

LOCK_ID = 0x71DE1EAD
CHECK_S = 2.0
"""How often replicas try the lock, and the leader checks its connection."""
CHECK_TIMEOUT_S = 2.0
_SETTINGS = {**KEEP_ALIVE, "idle_session_timeout": "0"}
"""Postgres drops an unreachable leader later than the leader gives up itself (4 s)."""

_log = structlog.stdlib.get_logger("tidegate.leader")

Lead = Callable[[asyncpg.Connection], Awaitable[None]]
"""The leader's work until it is cancelled; it may listen on the connection."""


class Leadership:
    """Tries to lead, for ever; ``lead`` runs while this replica does, and is cancelled when that ends."""

    def __init__(self, database: Database, lead: Lead) -> None:
        self._database = database
        self._lead = lead
        self.leads = False

    async def run(self) -> None:
        """Try to lead until cancelled."""
        await self._database.stay_connected(
            self._stand, "cannot stand for leader", again_after_s=CHECK_S, server_settings=_SETTINGS
        )

    async def _stand(self, connection: asyncpg.Connection) -> None:
        """Lead from when the lock is won until the connection is lost."""
        # polled, because a waiting statement would hit lock_timeout and hold a snapshot
        while not await _asked(connection, f"SELECT pg_try_advisory_lock({LOCK_ID})"):  # noqa: ASYNC110  another's lock sets no event
            await asyncio.sleep(CHECK_S)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda *_: lost.set())
        self.leads = True
        _log.info("leading")
        work = asyncio.ensure_future(self._lead(connection))
        watch = asyncio.create_task(_until_lost(connection, lost))
        try:
            done, _ = await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.leads = False
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
            _log.info("no longer leading")
        for task in done:
            task.result()


async def _until_lost(connection: asyncpg.Connection, lost: asyncio.Event) -> None:
    while not lost.is_set():
        try:
            async with asyncio.timeout(CHECK_S):
                await lost.wait()
        except TimeoutError:
            await _asked(connection, "SELECT 1")


async def _asked(connection: asyncpg.Connection, question: str) -> object:
    with translated():
        return await connection.fetchval(question, timeout=CHECK_TIMEOUT_S)
