"""Waiting until a revision has reached every connected node."""

import asyncio

from control_plane.database import Database
from control_plane.nodes import repository as nodes
from control_plane.push.watcher import HeadWatcher


class NodeReach:
    """Says when a revision has reached every connected node."""

    def __init__(self, database: Database, watcher: HeadWatcher, heartbeat_s: float) -> None:
        self._database = database
        self._watcher = watcher
        self._heartbeat_s = heartbeat_s

    async def reached(self, revision: int, wait_s: float) -> bool:
        """Wait until every connected node applied ``revision`` or a newer one; ``False`` after ``wait_s``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            # taken before the look, so that an ACK in between is not missed
            acked = self._watcher.acked.ticket()
            if await self._behind(revision) == 0:
                return True
            left_s = deadline - loop.time()
            if left_s <= 0 or self._watcher.closing:
                return False
            # a node of a crashed replica ages out without a word: look again now and then
            await acked.wait(min(left_s, self._heartbeat_s))

    async def _behind(self, revision: int) -> int:
        async with self._database.read() as session:
            return await nodes.behind(session, revision, self._heartbeat_s)
