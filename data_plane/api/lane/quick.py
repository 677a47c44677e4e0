"""The commonest request, in a straight line: a whole check whose head was seen before, alone on its connection."""

import asyncio
import logging
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from data_plane.api.lane.answers import AnsweringConnection
from data_plane.api.lane.beat import NEVER
from data_plane.api.lane.door import Exchange
from data_plane.api.lane.head import CHECK, Head
from data_plane.api.lane.refusal import PROBLEM_HEADERS, problem

_log = logging.getLogger("tidegate.lane")
_ROUTE_NAMES = ("check", "check_batch", "authorize")


class QuickConnection(AnsweringConnection):
    """Adds ``_alone``: an exchange that is in no queue, because nothing else has happened since it came.

    Whatever happens then calls ``_join_queue`` first, and all is as if it had been in the queue from the beginning.
    """

    __slots__ = ("_alone", "_beat", "_check", "_common", "_idle_ticks", "_new_check", "_responses", "_waiting_bytes")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        lane = self.lane
        self._alone: Exchange | None = None
        self._waiting_bytes = 0
        self._beat = lane.beat
        self._check = lane.door.check
        self._common = lane.heads.common
        self._idle_ticks = lane.beat.ticks(lane.limits.keep_alive_s)
        self._new_check = lane.exchange_types[CHECK]
        self._responses = lane.responses

    def answer(self, exchange: Exchange, status: int, headers: bytes, body: bytes) -> None:
        """Called by the exchange, once: send its answer and those that waited for it."""
        if self._alone is exchange:
            self._join_queue()
        super().answer(exchange, status, headers, body)

    def answer_ok(self, exchange: Exchange, headers: bytes, body: bytes) -> None:
        """As ``answer`` with 200."""
        if self._alone is not exchange:
            super().answer(exchange, 200, headers, body)
            return
        self._alone = None
        self._outbox.put(
            self._loop,
            self._transport,
            b"%b%bcontent-length: %d\r\n\r\n%b" % (self._responses.ok, headers, len(body), body),
        )
        self._server_state.total_requests += 1
        self.expires = self._beat.tick + self._idle_ticks

    def expire(self) -> None:
        """Whatever this connection was given time for has taken too long; an exchange alone has time."""
        if self._alone is not None:
            self._join_queue()
            return
        super().expire()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._join_queue()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """The client sends no more."""
        self._join_queue()
        return super().eof_received()

    def shutdown(self) -> None:
        """uvicorn stops."""
        self._join_queue()
        super().shutdown()

    def _serve_alone(self, head: Head, body: bytes) -> None:
        """Hand a check to the door while nothing else is under way."""
        exchange = self._new_check()
        exchange.asker = self
        exchange.head = head
        exchange.body = body
        exchange.waiting = None
        self._alone = exchange
        try:
            self._check(exchange)
        except Exception:  # noqa: BLE001 - a boundary: the door's mistake costs one request, not the others
            self._failed(exchange)

    def _join_queue(self) -> None:
        alone = self._alone
        if alone is not None:
            self._alone = None
            self._queue.append(alone)
            self._waiting_bytes = len(alone.body)
            self.expires = NEVER

    def _failed(self, exchange: Exchange) -> None:
        _log.exception("the door failed on %s", _ROUTE_NAMES[exchange.head.route])
        exchange.respond(500, PROBLEM_HEADERS, problem(500, "The node failed to answer."))
