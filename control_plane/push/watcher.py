"""Follows the newest revision by one LISTEN connection a replica, for all streams and waiters."""

import asyncio
import time
from collections import OrderedDict

import structlog

from control_plane.canary.placement import Views, views
from control_plane.database import Database, translated
from control_plane.errors import UnavailableError
from control_plane.nodes import repository as nodes
from control_plane.nodes.repository import ACK_CHANNEL
from control_plane.publishing.repository import REVISION_CHANNEL, Head

RECONNECT_S = 0.5
KEPT_REVISIONS = 64
_log = structlog.stdlib.get_logger("tidegate.watcher")


class Ticket:
    """Waits for the first signal after it was taken."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, timeout_s: float) -> None:
        """Return after the signal (at once if it came already), or after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return


class Signal:
    """A repeated signal. Take a ticket, check, then wait on the ticket: no signal is missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ticket(self) -> Ticket:
        """A ticket for the next signal."""
        return Ticket(self._event)

    def fire(self) -> None:
        """Wake everyone who waits now."""
        fired, self._event = self._event, asyncio.Event()
        fired.set()


class HeadWatcher:
    """Follows the head by notifications, and by a query every ``poll_s`` in case one was lost.

    ``views`` is ``None`` until it was read once. While Postgres is away the last one known stays.
    """

    def __init__(self, database: Database, poll_s: float) -> None:
        self._database = database
        self._poll_s = poll_s
        self._look = asyncio.Event()
        self._closing = False
        self.views: Views | None = None
        self._learned: OrderedDict[int, float] = OrderedDict()
        self.moved = Signal()
        self.acked = Signal()

    @property
    def closing(self) -> bool:
        """Whether this replica is shutting down, and streams should end."""
        return self._closing

    @property
    def head(self) -> Head | None:
        """The newest revision."""
        return None if self.views is None else self.views.head

    @property
    def revision(self) -> int:
        """The newest known revision; 0 before the first."""
        return 0 if self.views is None else self.views.head.revision

    def known_for_s(self, revision: int) -> float | None:
        """How long ago this replica saw ``revision`` first; ``None`` if it is not among the newest."""
        learned = self._learned.get(revision)
        return None if learned is None else time.monotonic() - learned

    def close(self) -> None:
        """End every stream and every wait now."""
        self._closing = True
        self.moved.fire()
        self.acked.fire()

    async def run(self) -> None:
        """Follow until cancelled, reconnecting as long as it takes."""
        while True:
            try:
                await self._follow()
            except UnavailableError as error:
                _log.warning("lost sight of revisions", cause=repr(error.__cause__))
            await asyncio.sleep(RECONNECT_S)

    async def _follow(self) -> None:
        connection = await self._database.listen_connection()
        watchdog: asyncio.Task[None] | None = None
        try:
            with translated():
                await connection.add_listener(REVISION_CHANNEL, lambda *_: self._look.set())
                await connection.add_listener(ACK_CHANNEL, lambda *_: self.acked.fire())
            connection.add_termination_listener(lambda *_: self._look.set())
            watchdog = asyncio.create_task(self._database.watch(connection))
            while not connection.is_closed():
                self._look.clear()
                await self._refresh()
                try:
                    async with asyncio.timeout(self._poll_s):
                        await self._look.wait()
                except TimeoutError:
                    continue
        finally:
            if watchdog is not None:
                watchdog.cancel()
                await asyncio.gather(watchdog, return_exceptions=True)
            connection.terminate()

    async def _refresh(self) -> None:
        async with self._database.read(reserved=True) as session:
            found = await views(session)
        if found != self.views:
            self.views = found
            self._learned[found.head.revision] = self._learned[found.stable.revision] = time.monotonic()
            while len(self._learned) > KEPT_REVISIONS:
                self._learned.popitem(last=False)
            self.moved.fire()


class NodeReach:
    """Waits until a revision has reached every connected node."""

    def __init__(self, database: Database, watcher: HeadWatcher, heartbeat_s: float) -> None:
        self._database = database
        self._watcher = watcher
        self._heartbeat_s = heartbeat_s

    async def reached(self, revision: int, wait_s: float) -> bool:
        """Wait until every connected node applied ``revision`` or a newer one; ``False`` after ``wait_s``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            # taken before the query, so that an ACK in between is not missed
            acked = self._watcher.acked.ticket()
            if await self._behind(revision) == 0:
                return True
            left_s = deadline - loop.time()
            if left_s <= 0 or self._watcher.closing:
                return False
            # nodes of a crashed replica age out without an ACK: check again now and then
            await acked.wait(min(left_s, self._heartbeat_s))

    async def _behind(self, revision: int) -> int:
        async with self._database.read() as session:
            return await nodes.behind(session, revision, self._heartbeat_s)
