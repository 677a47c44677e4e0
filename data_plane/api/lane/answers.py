"""The outgoing half of a lane connection: answers in the order of their requests, refusals, and the end."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import msgspec
from uvicorn.config import Config
from uvicorn.server import ServerState

from data_plane.api.lane.beat import NEVER
from data_plane.api.lane.door import Exchange, new_exchange
from data_plane.api.lane.head import NO_HEAD
from data_plane.api.lane.refusal import PROBLEM_HEADERS, Refusal, problem

if TYPE_CHECKING:
    from data_plane.api.lane.lane import Lane


class AnsweringConnection(asyncio.Protocol):
    """What every connection has: a transport, the exchanges in flight in the order they came, and an end.

    ``_deaf`` means that nothing which still comes in matters: the ``_last`` exchange is in the queue or answered, or
    the client is gone. ``_receiving`` means that a request has begun to arrive and isn't whole.
    """

    lane: "Lane"

    __slots__ = (
        "_app_state",
        "_build",
        "_config",
        "_deaf",
        "_eof",
        "_last",
        "_lingers",
        "_loop",
        "_outbox",
        "_queue",
        "_receiving",
        "_server_state",
        "_transport",
        "_write_paused",
        "expires",
        "peer",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._queue: deque[Exchange] = deque()
        self._last: Exchange | None = None
        self._deaf = self._eof = self._lingers = self._receiving = self._write_paused = False
        self._build = self.lane.responses.build
        self._outbox = self.lane.outbox
        self.expires = NEVER
        self.peer: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; beyond uvicorn's ``limit_concurrency`` by refusing."""
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, (tuple, list)) else None
        connections = cast("set[Any]", self._server_state.connections)
        connections.add(self)
        self.lane.beat.add(self, self._loop)
        self._expire_in(self.lane.limits.keep_alive_s)
        most = self._config.limit_concurrency
        if most is not None and len(connections) > most:
            self._refuse(Refusal(503, "Too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: answers that come late are ignored."""
        del exc
        self._leave()
        for exchange in self._queue:
            exchange.asker = None
        self._queue.clear()
        self._stop_listening()

    def eof_received(self) -> bool:
        """The client sends no more, but may wait for answers (not over TLS, where it can't close just one half)."""
        self._eof = True
        return bool(self._queue) and self._transport.get_extra_info("sslcontext") is None

    def shutdown(self) -> None:
        """uvicorn stops: finish what is in flight, then close; an idle connection closes at once."""
        self._stop_listening()
        if self._queue:
            self._last = self._queue[-1]
        else:
            self._close()

    def expire(self) -> None:
        """Whatever this connection was given time for has taken too long."""
        if self._write_paused or self._transport.is_closing():
            self._transport.abort()
        elif self._receiving:
            self._refuse(Refusal(408, f"The request was not whole within {self.lane.limits.request_s:g} s."))
        else:
            self._close()

    def answer(self, exchange: Exchange, status: int, headers: bytes, body: bytes) -> None:
        """Called by the exchange, once: send its answer and those that waited for it."""
        queue = self._queue
        if queue[0] is not exchange:
            exchange.waiting = (status, headers, body)
            return
        transport = self._transport
        if transport.is_closing():
            return
        queue.popleft()
        head = exchange.head
        if exchange is self._last or head.old or head.bodiless:
            self._outbox.put(self._loop, transport, self._response(exchange, status, headers, body))
        else:
            self._outbox.put(self._loop, transport, self._build(status, headers, body))
        self._server_state.total_requests += 1
        if queue and queue[0].waiting is not None:
            self._send_waiting()
        if not queue:
            if self._last is None:
                self._all_answered()
            else:
                self._finish()

    def answer_ok(self, exchange: Exchange, headers: bytes, body: bytes) -> None:
        """As ``answer`` with 200."""
        self.answer(exchange, 200, headers, body)

    def _all_answered(self) -> None:
        """Nothing is in flight any more."""
        raise NotImplementedError

    def _stop_listening(self) -> None:
        """Forget what has come in and isn't a whole request."""
        self._deaf = True
        self._receiving = False

    def _response(self, exchange: Exchange, status: int, headers: bytes, body: bytes) -> bytes:
        return self.lane.responses.build_special(
            status,
            headers,
            body,
            close=exchange is self._last,
            old=exchange.head.old,
            bodiless=exchange.head.bodiless,
        )

    def _send_waiting(self) -> None:
        queue = self._queue
        responses = []
        while queue:
            waiting = queue[0].waiting
            if waiting is None:
                break
            responses.append(self._response(queue.popleft(), *waiting))
        self._server_state.total_requests += len(responses)
        self._outbox.put(self._loop, self._transport, b"".join(responses))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with a problem after all earlier answers, then close."""
        self._stop_listening()
        self._lingers = True
        self.expires = NEVER
        exchange = new_exchange(Exchange, self, msgspec.structs.replace(NO_HEAD, bodiless=refusal.bodiless), b"")
        self._last = exchange
        self._queue.append(exchange)
        exchange.respond(refusal.status, PROBLEM_HEADERS, problem(refusal.status, refusal.detail))

    def _finish(self) -> None:
        """The last answer is written. A client that still sends gets time to read it: closing at once would reset."""
        self._deaf = True
        self._outbox.flush()
        if not self._lingers or self._eof:
            self._close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        if not self._write_paused:
            self._expire_in(self.lane.limits.linger_s)

    def _close(self) -> None:
        self._deaf = True
        self._outbox.flush()
        self._transport.close()
        self._expire_in(self.lane.limits.write_s)

    def _leave(self) -> None:
        self._deaf = True
        self.lane.beat.remove(self)
        self._server_state.connections.discard(cast("Any", self))

    def _expire_in(self, seconds: float) -> None:
        beat = self.lane.beat
        self.expires = beat.tick + beat.ticks(seconds)
