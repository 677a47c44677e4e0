"""What open tabs are sent: each part is read and rendered once a replica, for all tabs that show it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog
from starlette.types import ASGIApp

from control_plane.access.principals import Principal
from control_plane.console.api import Api, RefusedError
from control_plane.console.render import render
from control_plane.console.sessions import May, Sessions, Visitor
from control_plane.errors import UnavailableError
from control_plane.push.stream import HeadWatcher
from tidegate.contract.credentials import secret_sha256

EVERY_S = 5.0
SETTLE_S = 0.1
"""After a signal others usually follow: they are shown together."""
SESSIONS_EVERY_S = 30.0
HEARTBEAT_S = 15.0
MAX_TABS = 100
READER = Principal("console", "viewer")
"""Parts that go to many tabs are read with the weakest role: they hold nothing that a viewer may not see."""
_log = structlog.stdlib.get_logger("tidegate.console")


class Part(NamedTuple):
    """A part of a page that changes by itself. ``at_once``: with each revision and ACK, else every 5 s."""

    template: str
    read: Callable[[Api, "Feed"], Awaitable[dict[str, Any]]]
    at_once: bool


class Head(NamedTuple):
    """What the top of every page says; ``away_since``: since when Postgres does not answer."""

    revision: int
    away_since: datetime | None


class Tab:
    """One open tab: of each part only the newest waits, so a slow reader costs nothing."""

    def __init__(self, parts: frozenset[str], session: str, may: May) -> None:
        self.parts = parts
        self.session = session
        self.may = may
        self._waiting: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def send(self, part: str, text: str) -> None:
        """Show ``text`` in place of the part."""
        self._waiting[part] = text
        self._wake.set()

    def close(self) -> None:
        """Send what waits, then end."""
        self._closed = True
        self._wake.set()

    async def messages(self) -> AsyncIterator[str]:
        """Server-sent events, and a comment after a while without any."""
        yield "retry: 2000\n\n"
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            for part, text in waiting.items():
                yield _event(part, text)
            if self._closed:
                return
            if not waiting:
                yield ": still here\n\n"


class Feed:
    """The open tabs of this replica. Nothing is read while there are none."""

    def __init__(self, watcher: HeadWatcher, sessions: Sessions, routes: ASGIApp, parts: Mapping[str, Part]) -> None:
        self._watcher = watcher
        self._sessions = sessions
        self._routes = routes
        self._parts = parts
        self._tabs: set[Tab] = set()
        self._someone = asyncio.Event()
        self._away_since: datetime | None = None
        self._shown_head: Head | None = None
        self.overview: dict[str, Any] | None = None
        """What was last known of nodes, with ``read_at``: shown while Postgres is away."""
        self.factors: list[dict[str, Any]] = []
        """Backends' factors as they were read here, the oldest first."""

    @property
    def head(self) -> Head:
        """The newest revision that this replica knows, and whether Postgres answers."""
        return Head(self._watcher.revision, self._away_since)

    def note_answer(self, *, away: bool) -> None:
        """Note whether Postgres answered."""
        self._away_since = (self._away_since or datetime.now(UTC)) if away else None

    @property
    def full(self) -> bool:
        """Whether this replica serves as many tabs as it may, or is about to stop."""
        return len(self._tabs) >= MAX_TABS or self._watcher.closing

    def open(self, parts: str, visitor: Visitor) -> Tab:
        """A tab that shows these parts."""
        known = frozenset(parts.split(",")) & self._parts.keys()
        tab = Tab(known, secret_sha256(visitor.secret), May(visitor.principal.role))
        self._tabs.add(tab)
        self._someone.set()
        return tab

    def close(self, tab: Tab) -> None:
        """Forget a tab that was closed."""
        self._tabs.discard(tab)
        if not self._tabs:
            self._someone.clear()

    async def run(self, state: Mapping[str, Any]) -> None:
        """Send until cancelled; ``state`` is that of requests."""
        api = Api(self._routes, READER, {"app": None, "state": state, "client": None, "server": None})
        loop = asyncio.get_running_loop()
        next_tick_s = next_look_s = 0.0
        while True:
            await self._someone.wait()
            moved, acked = self._watcher.moved.ticket(), self._watcher.acked.ticket()
            if self._watcher.closing:
                for tab in self._tabs:
                    tab.close()
                return
            tick = loop.time() >= next_tick_s
            if tick:
                next_tick_s = loop.time() + EVERY_S
            if loop.time() >= next_look_s:
                next_look_s = loop.time() + SESSIONS_EVERY_S
                await self._end_sessions()
            await self._send(api, tick=tick)
            left_s = max(0.01, next_tick_s - loop.time())
            waits = [asyncio.create_task(moved.wait(left_s)), asyncio.create_task(acked.wait(left_s))]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            await asyncio.sleep(SETTLE_S)

    async def _send(self, api: Api, *, tick: bool) -> None:
        wanted = {part for tab in self._tabs for part in tab.parts}
        before = self._shown_head
        try:
            for name in sorted(wanted):
                part = self._parts[name]
                if tick or part.at_once:
                    found = await part.read(api, self)
                    self._show(name, part.template, found)
                    self.note_answer(away=False)
        except (RefusedError, UnavailableError) as error:
            status = error.answer.status if isinstance(error, RefusedError) else 503
            if status != 503:
                _log.error("a part of a page could not be read", exc_info=error)
                return
            self.note_answer(away=True)
        self._shown_head = self.head
        if self._shown_head != before:
            self._show("head", "head.html", {"head": self.head})

    def _show(self, part: str, template: str, found: Mapping[str, Any]) -> None:
        """Render once for each role, since a viewer is shown no button that would be refused."""
        tabs = [tab for tab in self._tabs if part in tab.parts or part == "head"]
        texts = {may: render(template, **found, may=may) for may in {tab.may for tab in tabs}}
        for tab in tabs:
            tab.send(part, texts[tab.may])

    async def _end_sessions(self) -> None:
        with contextlib.suppress(UnavailableError):
            live = await self._sessions.still_in_force({tab.session for tab in self._tabs})
            for tab in [tab for tab in self._tabs if tab.session not in live]:
                tab.send("ended", "The session has ended.")
                tab.close()


def _event(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n"
