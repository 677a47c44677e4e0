"""What the connections of one server share, and how uvicorn gets to know of it."""

import asyncio
import time
from collections.abc import Callable, Iterable

from data_plane.api.lane.beat import Beat
from data_plane.api.lane.connection import LaneConnection
from data_plane.api.lane.door import Door, Exchange
from data_plane.api.lane.head import HeadParser
from data_plane.api.lane.limits import LaneLimits
from data_plane.api.lane.outbox import Outbox
from data_plane.api.lane.response import ResponseBuilder


class Lane:
    """The decision lane of one event loop. ``door`` may be replaced until the first connection comes."""

    def __init__(
        self, door: Door, limits: LaneLimits | None = None, *, wall_s: Callable[[], float] = time.time
    ) -> None:
        self.door = door
        self.exchange_types: tuple[type[Exchange], ...] = getattr(door, "exchange_types", (Exchange,) * 3)
        self.limits = limits or LaneLimits()
        self.heads = HeadParser(self.limits)
        self.responses = ResponseBuilder()
        self.outbox = Outbox()
        self.beat = Beat(self.limits.tick_s, self.responses, wall_s)

    def drain(self, connections: Iterable[object]) -> None:
        """Answer one more request on each connection, old or new, with ``Connection: close``. For good."""
        self.heads.be_last()
        for connection in connections:
            if isinstance(connection, LaneConnection):
                connection.forget_head()

    def protocol_class(self) -> type[asyncio.Protocol]:
        """For ``uvicorn.Config(http=...)``."""
        return type("BoundLaneConnection", (LaneConnection,), {"__slots__": (), "lane": self})
