"""One timer for all connections of a loop: it dates responses and ends what took too long."""

import asyncio
import sys
from collections.abc import Callable
from typing import Final, Protocol

from data_plane.api.lane.response import ResponseBuilder

NEVER: Final = sys.maxsize


class Expiring(Protocol):
    """A connection. Its ``expires`` is the tick from which on ``expire()`` is called, once a tick; or ``NEVER``."""

    expires: int

    def expire(self) -> None:
        """End what took too long."""
        ...


class Beat:
    """Ticks every ``tick_s`` seconds while there are connections, and not at all while there are none."""

    def __init__(self, tick_s: float, responses: ResponseBuilder, wall_s: Callable[[], float]) -> None:
        self.tick = 0
        self._tick_s = tick_s
        self._responses = responses
        self._wall_s = wall_s
        self._connections: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None

    def ticks(self, seconds: float) -> int:
        """How many ticks are at least ``seconds``."""
        return int(seconds / self._tick_s) + 1

    def add(self, connection: Expiring, loop: asyncio.AbstractEventLoop) -> None:
        """Watch ``connection`` until ``remove``."""
        self._connections.add(connection)
        if self._timer is None:
            self._responses.set_date(self._wall_s())
            self._timer = loop.call_later(self._tick_s, self._beat, loop)

    def remove(self, connection: Expiring) -> None:
        """Forget ``connection``."""
        self._connections.discard(connection)
        if not self._connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._tick_s, self._beat, loop)
        self.beat()

    def beat(self) -> None:
        """One tick. Tests call it to drive the time."""
        self.tick += 1
        self._responses.set_date(self._wall_s())
        tick = self.tick
        for connection in [one for one in self._connections if one.expires <= tick]:
            connection.expire()
