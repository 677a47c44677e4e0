"""One connection: the straight line of the commonest request, answers in the order of their requests, and the end."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import msgspec
from uvicorn.config import Config
from uvicorn.server import ServerState

from tidegate.http_front.exchange import NO_HEAD, Exchange, Head, new_exchange
from tidegate.http_front.front import NEVER, Front
from tidegate.http_front.responses import PROBLEM_HEADERS, Refusal, problem

log = logging.getLogger("tidegate.front")
_OUTBOX_BYTES = 64 * 1024


def _nothing(_exchange: Exchange) -> None:
    """Stands in where no route is fast: nothing comes here."""


class Connection(asyncio.Protocol):
    """A uvicorn HTTP protocol: a transport, the exchanges in flight in the order they came, and an end.

    ``alone`` is an exchange that is in no queue, because nothing else has happened since it came: the commonest
    request goes a straight line. Whatever happens then calls ``_join_queue`` first, and all is as if it had been in
    the queue from the beginning.

    ``unread`` holds bytes from the beginning of a request (or of what is left of its body) on. ``_deaf`` means that
    nothing which still comes in matters: the ``_last`` exchange is in the queue or answered, or the client is gone.
    ``_receiving`` means that a request has begun to arrive and isn't whole. While ``_held``, nothing is parsed or read.
    """

    front: Front
    outbox: "Outbox"
    """Those of the port, for all its connections. Subclasses that ``serving.protocol_class`` makes have them."""

    __slots__ = (
        "_app_state",
        "_build",
        "_common",
        "_config",
        "_deaf",
        "_eof",
        "_first_type",
        "_held",
        "_idle_ticks",
        "_last",
        "_lingers",
        "_loop",
        "_need",
        "_outbox",
        "_receiving",
        "_responses",
        "_server_state",
        "_transport",
        "_waiting_bytes",
        "_write_paused",
        "alone",
        "expires",
        "first_handle",
        "peer",
        "queue",
        "unfinished_bytes",
        "unread",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        front = self.front
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.queue: deque[Exchange] = deque()
        self.alone: Exchange | None = None
        self._last: Exchange | None = None
        self._waiting_bytes = self._need = 0
        self.unfinished_bytes = 0
        """What it holds of a request that has not come whole."""
        self.unread = bytearray()
        self._deaf = self._eof = self._held = self._lingers = self._receiving = self._write_paused = False
        self._responses = front.responses
        self._build = front.responses.build
        self._outbox = self.outbox  # a slot is read faster than what a class has
        routes = front.fast_path.routes
        self._first_type: type[Exchange] = routes[0].exchange_type if routes else Exchange
        self.first_handle: Callable[[Any], None] = routes[0].handle if routes else _nothing
        self._common = front.heads.common
        self._idle_ticks = front.ticks(front.limits.keep_alive_s)
        self.expires = NEVER
        """The tick from which on the front calls ``expire()``, once a tick."""
        self.peer: str | None = None

    # The commonest request goes a straight line: in, its answer out

    def data_received(self, data: bytes) -> None:
        """Parse what came, together with what was left."""
        if self._deaf:
            return
        unread = self.unread
        if self.alone is not None:
            self._join_queue()
        elif not (self.queue or unread or self._receiving or self._held):
            start = data.find(b"\r\n\r\n") + 4
            head = self._common.get(data[:start])
            if head is not None and len(data) == start + head.length:
                self._serve_alone(head, data[start:])
                return
        if unread or self._held:
            known = len(unread)
            unread += data
            if self._held or len(unread) < self._need or self._looked_lately(known):
                self._note_unfinished()
                return
            data = bytes(unread)
            unread.clear()
        self._parse(data)
        if self._receiving or unread or self.unfinished_bytes:
            self._note_unfinished()

    def _serve_alone(self, head: Head, body: bytes) -> None:
        """Hand a request of the first route over while nothing else is under way."""
        exchange = self._first_type()
        exchange.asker = self
        exchange.head = head
        exchange.body = body
        exchange.waiting = None
        self.alone = exchange
        try:
            self.first_handle(exchange)
        except Exception:  # noqa: BLE001 - a boundary: the handler's mistake costs one request, not the others
            self._failed(exchange)

    def answer_ok(self, exchange: Exchange, headers: bytes, body: bytes) -> None:
        """As ``answer`` with 200; at once where the exchange is alone."""
        if self.alone is not exchange:
            self.answer(exchange, 200, headers, body)
            return
        self.alone = None
        self._outbox.put(
            self._loop,
            self._transport,
            b"%b%bcontent-length: %d\r\n\r\n%b" % (self._responses.ok, headers, len(body), body),
        )
        self._server_state.total_requests += 1
        self.expires = self.front.tick + self._idle_ticks

    # What the transport, uvicorn and the front call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; where there are too many by refusing."""
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, (tuple, list)) else None
        cast("set[Any]", self._server_state.connections).add(self)
        self._expire_in(self.front.limits.keep_alive_s)
        if not self.front.add(self, self._loop):
            self._refuse(Refusal(503, "Too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: answers that come late are ignored."""
        del exc
        self._join_queue()
        self.front.remove(self)
        self._server_state.connections.discard(cast("Any", self))
        for exchange in self.queue:
            exchange.asker = None
        self.queue.clear()
        self._stop_listening()

    def eof_received(self) -> bool:
        """The client sends no more, but may wait for answers (not over TLS, where it can't close just one half)."""
        self._join_queue()
        self._eof = True
        return bool(self.queue) and self._transport.get_extra_info("sslcontext") is None

    def shutdown(self) -> None:
        """uvicorn stops: finish what is in flight, then close; an idle connection closes at once."""
        self._join_queue()
        self._stop_listening()
        if self.queue:
            self._last = self.queue[-1]
        else:
            self._close()

    def expire(self) -> None:
        """Whatever this connection was given time for has taken too long; an exchange alone has time."""
        if self.alone is not None:
            self._join_queue()
        elif self._write_paused or self._transport.is_closing():
            self._transport.abort()
        elif self._receiving:
            self._refuse(Refusal(408, f"The request was not whole within {self.front.limits.request_s:g} s."))
        else:
            self._close()

    @property
    def waits(self) -> bool:
        """Whether no whole request is being answered."""
        return self.alone is None and not self.queue

    def go_on(self) -> None:
        """Begin the next request of those that wait behind one another."""
        raise NotImplementedError

    def forget_head(self) -> None:
        """Read the next head anew: what it means has changed."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the client at once."""
        self._deaf = True
        self._transport.abort()

    # What exchanges call

    def answer(self, exchange: Exchange, status: int, headers: bytes, body: bytes) -> None:
        """Called by the exchange, once: send its answer and those that waited for it."""
        if self.alone is exchange:
            self._join_queue()
        queue = self.queue
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
            self._after_last_in_queue()

    # Inside

    def _all_answered(self) -> None:
        """Nothing is in flight any more."""
        raise NotImplementedError

    def _looked_lately(self, known: int) -> bool:
        """Whether ``unread``, of which ``known`` bytes are not new, is a head that can wait for more of it."""
        raise NotImplementedError

    def _parse(self, data: bytes) -> None:
        """Serve every whole request in ``data``."""
        raise NotImplementedError

    def _note_unfinished(self) -> None:
        """Tell the front how much is held of a request that isn't whole."""
        raise NotImplementedError

    def _stop_listening(self) -> None:
        """Forget what has come in and isn't a whole request."""
        self._deaf = True
        self._receiving = False

    def _join_queue(self) -> None:
        alone = self.alone
        if alone is not None:
            self.alone = None
            self.queue.append(alone)
            self._waiting_bytes = len(alone.body)
            self.expires = NEVER

    def _failed(self, exchange: Exchange) -> None:
        log.exception("the handler failed on %s", self.front.fast_path.routes[exchange.head.route].name)
        exchange.respond(500, PROBLEM_HEADERS, problem(500, "The node failed to answer."))

    def _response(self, exchange: Exchange, status: int, headers: bytes, body: bytes) -> bytes:
        return self._responses.build_special(
            status,
            headers,
            body,
            close=exchange is self._last,
            old=exchange.head.old,
            bodiless=exchange.head.bodiless,
        )

    def _send_waiting(self) -> None:
        queue = self.queue
        responses = []
        while queue:
            waiting = queue[0].waiting
            if waiting is None:
                break
            responses.append(self._response(queue.popleft(), *waiting))
        self._server_state.total_requests += len(responses)
        self._outbox.put(self._loop, self._transport, b"".join(responses))

    def _after_last_in_queue(self) -> None:
        if self._last is None:
            self._all_answered()
        else:
            self._finish()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with a problem after all earlier answers, then close."""
        self._stop_listening()
        self._lingers = True
        self.expires = NEVER
        exchange = new_exchange(Exchange, self, msgspec.structs.replace(NO_HEAD, bodiless=refusal.bodiless), b"")
        self._last = exchange
        self.queue.append(exchange)
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
            self._expire_in(self.front.limits.linger_s)

    def _close(self) -> None:
        self._deaf = True
        self._outbox.flush()
        self._transport.close()
        self._expire_in(self.front.limits.write_s)

    def _expire_in(self, seconds: float) -> None:
        front = self.front
        self.expires = front.tick + front.ticks(seconds)


class Outbox:
    """Answers of one turn of the event loop, sent back to back. Who writes past it or closes a transport flushes it.

    A write wakes whoever waits for it. Sent one by one between decisions, each answer would wake a client that drains
    it and sleeps again; sent together they cost a tenth less of the node's time.
    """

    def __init__(self) -> None:
        self._writes: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._bytes = 0

    def put(self, loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Send ``data`` at the end of this turn, or now when too much is waiting: a transport's own backpressure only
        begins with what it was given.
        """
        writes = self._writes
        writes.append((transport, data))
        self._bytes += len(data)
        if self._bytes > _OUTBOX_BYTES:
            self.flush()
        elif len(writes) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send everything now."""
        writes, self._writes, self._bytes = self._writes, [], 0
        for transport, data in writes:
            if not transport.is_closing():
                transport.write(data)
