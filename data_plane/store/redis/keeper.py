"""Keeps one connection to a server: opens it, and opens it again with backoff and jitter when it is lost."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import hiredis
from redis.exceptions import AuthenticationError

from data_plane.store.redis.calls import Link, ReplyTaker, pack_command
from data_plane.store.redis.circuit import Backoff
from data_plane.store.redis.connect import ConnectFailedError, Connector
from data_plane.store.redis.server import ServerFacts, StoreMisconfiguredError
from data_plane.store.redis.status import Reason, StoreStats, error_code

log = logging.getLogger(__name__)


class LinkKeeper:
    """``link`` is the connection in use, or ``None`` while there is none.

    The wait before a new attempt starts small again only once the server decided something: a server that takes
    connections but refuses every call (a replica, say) is not hammered.
    """

    def __init__(
        self,
        connector: Connector,
        backoff: Backoff,
        stats: StoreStats,
        *,
        on_open: Callable[[], None],
        on_lost: Callable[[Link], None],
        on_failure: Callable[[], None],
    ) -> None:
        self._connector = connector
        self._backoff = backoff
        self._stats = stats
        self._on_open = on_open
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._task: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._closed = False
        self.proven = False
        """Whether the server decided something over this connection."""
        self.link: Link | None = None
        self.sha = b""
        self.facts = ServerFacts()
        self.last_problem: Reason | None = None

    async def start(self) -> None:
        """Connect once; when the server is away, keep trying behind. Raises ``StoreMisconfiguredError``."""
        if self._connector.renew_s is not None:
            self._renewing = asyncio.create_task(self._renew(self._connector.renew_s), name="redis-renew-login")
        try:
            await self._open()
        except ConnectFailedError as error:
            self._note_failure(error.reason, error)
            self.begin()

    def begin(self) -> None:
        """Connect behind, without waiting."""
        self._task = asyncio.create_task(self._retry(), name="redis-connect")

    def note_decision(self) -> None:
        """The server decided something over this connection."""
        self.proven = True
        self._backoff.reset()

    def reconnect(self) -> None:
        """Give the connection up and make a new one; calls that wait on it fail on the loop."""
        link, self.link = self.link, None
        if link is not None:
            link.drop()

    async def close(self) -> Sequence[ReplyTaker | None]:
        """Stop for good. Returns the takers of replies that are missing."""
        self._closed = True
        for task in (self._task, self._renewing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        link, self.link = self.link, None
        if link is None:
            return ()
        await link.close()
        return tuple(link.waiting)

    def on_reply(self, reply: object) -> None:
        """The server's answer to a renewed login; one that it refuses changes nothing, and the next one is sent."""
        if isinstance(reply, hiredis.ReplyError):
            log.warning("the store refused a renewed login: %s", error_code(str(reply)))

    async def _renew(self, every_s: float) -> None:
        """Log in again over the same connection whenever there are new credentials: nothing waits for it."""
        while True:
            await asyncio.sleep(every_s)
            try:
                login = await self._connector.new_login()
            except AuthenticationError as error:
                log.warning("the store's login cannot be renewed: %s", error)
                continue
            if login is not None and self.link is not None:
                self.link.send(pack_command("AUTH", *login), (self,))

    def _lost(self, link: Link) -> None:
        if self.link is link:
            self.link = None
        self._on_lost(link)
        if not self._closed and (self._task is None or self._task.done()):
            self.begin()

    async def _retry(self) -> None:
        while self.link is None and not self._closed:
            await asyncio.sleep(self._backoff.next_s())
            try:
                await self._open()
            except ConnectFailedError as error:
                self._note_failure(error.reason, error)
            except StoreMisconfiguredError as error:
                self._note_failure("misconfigured", error)

    async def _open(self) -> None:
        opened = await self._connector.open(self._lost)
        self.link, self.facts, self.sha = opened.link, opened.facts, opened.sha
        self.proven = False
        self.last_problem = None
        self._stats.connects += 1
        self._stats.script_loads += 1
        self._on_open()

    def _note_failure(self, reason: Reason, error: Exception) -> None:
        if self.last_problem != reason:
            log.warning("cannot use the store (%s): %s", reason, error)
        self.last_problem = reason
        self._stats.connect_failures += 1
        self._on_failure()
