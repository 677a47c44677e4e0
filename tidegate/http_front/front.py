"""What the connections of one port share: grammar, bounds, the date, and one timer that ends what takes too long."""

import asyncio
import heapq
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tidegate.http_front.exchange import NO_FAST_PATH, FastPath
from tidegate.http_front.head import HeadParser
from tidegate.http_front.limits import FrontLimits, connections_that_fit
from tidegate.http_front.responses import ResponseBuilder

if TYPE_CHECKING:
    from tidegate.http_front.connection import Connection

NEVER: Final = sys.maxsize


class Front:
    """One port of one event loop. Ticks every ``tick_s`` while there are connections, and not at all without."""

    def __init__(
        self,
        fast_path: FastPath = NO_FAST_PATH,
        limits: FrontLimits | None = None,
        *,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        limits = limits or FrontLimits()
        self.limits = limits if limits.connections else replace(limits, connections=connections_that_fit())
        self.fast_path = fast_path
        self.heads = HeadParser(self.limits, fast_path)
        self.responses = ResponseBuilder()
        self.tick = 0
        self.connections: set[Connection] = set()
        self.unfinished_bytes = 0
        self._backlog: deque[Connection] = deque()
        self._turn_arranged = False
        self._wall_s = wall_s
        self.timer: asyncio.TimerHandle | None = None

    def drain(self) -> None:
        """Answer one more request on each connection, old or new, with ``Connection: close``. For good."""
        self.heads.be_last()
        for connection in self.connections:
            connection.reader.forget_head()

    def ticks(self, seconds: float) -> int:
        """How many ticks are at least ``seconds``."""
        return int(seconds / self.limits.tick_s) + 1

    def add(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> bool:
        """Watch ``connection`` until ``remove``; whether there is room for it."""
        connections = self.connections
        if len(connections) >= self.limits.connections:
            self._end(1 + len(connections) // 32)
        connections.add(connection)
        if self.timer is None:
            self.responses.set_date(self._wall_s())
            self.timer = loop.call_later(self.limits.tick_s, self._on_timer, loop)
        return len(connections) <= self.limits.connections

    def remove(self, connection: "Connection") -> None:
        """Forget ``connection``."""
        self.hold(connection, 0)
        self.connections.discard(connection)
        if not self.connections and self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def hold(self, connection: "Connection", size: int) -> None:
        """Note how many bytes ``connection`` holds of a request that is not whole; make room when it is too much."""
        self.unfinished_bytes += size - connection.unfinished_bytes
        connection.unfinished_bytes = size
        if size and self.unfinished_bytes > self.limits.unfinished_bytes:
            self._end(1 + len(self.connections) // 32, holding=True)

    def go_on_later(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> None:
        """Let ``connection`` begin its next request when its turn comes: one a turn of the loop, of all that wait.

        Who sends request after request without waiting for answers holds up nobody who does wait.
        """
        self._backlog.append(connection)
        self._arrange_turn(loop)

    def on_tick(self) -> None:
        """One tick. Tests call it to drive the time."""
        self.tick += 1
        self.responses.set_date(self._wall_s())
        tick = self.tick
        for connection in [one for one in self.connections if one.expires <= tick]:
            connection.expire()

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self.timer = loop.call_later(self.limits.tick_s, self._on_timer, loop)
        self.on_tick()

    def _on_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turn_arranged = False
        try:
            self._backlog.popleft().go_on()
        finally:
            self._arrange_turn(loop)

    def _arrange_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._backlog and not self._turn_arranged:
            self._turn_arranged = True
            loop.call_soon(self._on_turn, loop)

    def _end(self, count: int, *, holding: bool = False) -> None:
        """Drop ``count`` connections that wait, those that would end soonest: half a head has less time than none."""
        if holding:
            waiting = [one for one in self.connections if one.unfinished_bytes]
        else:
            waiting = [one for one in self.connections if one.waits]
        for connection in heapq.nsmallest(count, waiting, key=lambda one: one.expires):
            self.remove(connection)
            connection.abort()
