"""One connection: requests in, their answers out in the same order, and the end."""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import msgspec
from uvicorn.config import Config
from uvicorn.server import ServerState

from tidegate.http_front.app_request import AppRequest, scope_of
from tidegate.http_front.exchange import ELSEWHERE, NO_HEAD, Exchange, Head, new_exchange
from tidegate.http_front.front import NEVER, Front
from tidegate.http_front.request_reader import RequestReader
from tidegate.http_front.responses import PROBLEM_HEADERS, Refusal, problem

log = logging.getLogger("tidegate.front")
_OUTBOX_BYTES = 64 * 1024


def _nothing(_exchange: Exchange) -> None:
    """Stands in where no route is fast: nothing comes here."""


class Connection(asyncio.Protocol):
    """A uvicorn HTTP protocol. The fast path answers whole requests; the application answers others, one at a time."""

    __slots__ = (
        "_app", "_app_state", "_build", "_common", "_config", "_deaf", "_eof", "_first_type", "_held", "_idle_ticks",
        "_last", "_lingers", "_loop", "_outbox", "_parsing", "_receiving", "_responses", "_server_state", "_transport",
        "_waiting_bytes", "_write_paused", "alone", "expires", "first_handle", "front", "peer", "queue", "reader",
        "unfinished_bytes",
    )  # fmt: skip

    def __init__(
        self,
        front: Front,
        outbox: "Outbox",
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.front = front
        self._outbox = outbox
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.peer: str | None = None
        self._responses = front.responses
        self._build = front.responses.build
        routes = front.fast_path.routes
        self._first_type: type[Exchange] = routes[0].exchange_type if routes else Exchange
        self.first_handle: Callable[[Any], None] = routes[0].handle if routes else _nothing
        self._common = front.heads.common
        self._idle_ticks = front.ticks(front.limits.keep_alive_s)

        # What comes in
        self.reader = RequestReader(front.heads)
        self._parsing = False
        """``_read_requests`` is running, and goes on by itself when a request is answered at once."""
        self._receiving = False
        """A request has begun to arrive and is not whole. Never while ``_held``."""
        self._held = False
        """Nothing is read, and what still comes is kept, until everything in flight is answered and taken."""
        self._deaf = False
        """Nothing that still comes in matters: the ``_last`` exchange is in the queue, or the client is gone."""
        self._eof = False
        """The client sends no more."""
        self.unfinished_bytes = 0
        """What it holds of a request that has not come whole, as the front was told."""

        # What is in flight
        self.alone: Exchange | None = None
        """An exchange that is in no queue, as nothing else has happened since it came: the commonest request. Whatever
        happens then calls ``_join_queue`` first, and all is as if it had been in the queue from the beginning.
        """
        self.queue: deque[Exchange] = deque()
        """Exchanges in the order they came; the first has no answer yet."""
        self._app: AppRequest | None = None
        """The one that the application answers, alone in the queue; its body is fed as it comes."""
        self._waiting_bytes = 0
        """Bodies of the queue."""

        # What goes out, and the end
        self._write_paused = False
        """The client takes its answers too slowly."""
        self._last: Exchange | None = None
        """The exchange whose answer ends the connection."""
        self._lingers = False
        """The client may still be sending when it ends."""
        self.expires = NEVER
        """The tick from which on the front calls ``expire()``, once a tick."""

    # The commonest request goes a straight line: in, its answer out

    def data_received(self, data: bytes) -> None:
        """Serve the requests that are whole with what came."""
        if self._deaf:
            return
        if self.alone is not None:
            self._join_queue()
        elif not (self.queue or self._receiving or self._held):
            start = data.find(b"\r\n\r\n") + 4
            head = self._common.get(data[:start])
            if head is not None and len(data) == start + head.length:
                self._serve_alone(head, data[start:])
                return
        if self._held:
            self.reader.unread += data
            self._note_unfinished()
            return
        self.reader.take(data)
        self._read_requests()
        if self._receiving or self._held or self.unfinished_bytes:
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
        response = b"%b%bcontent-length: %d\r\n\r\n%b" % (self._responses.ok, headers, len(body), body)
        self._outbox.put(self._loop, self._transport, response)
        self._server_state.total_requests += 1
        self.expires = self.front.tick + self._idle_ticks

    # What the transport, uvicorn and the front call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; where there are too many by refusing."""
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, (tuple, list)) else None
        if self.peer is not None:
            self._bound_silence(transport.get_extra_info("socket"))
        cast("set[Any]", self._server_state.connections).add(self)
        self._expire_in(self.front.limits.keep_alive_s)
        if not self.front.add(self, self._loop):
            self._refuse(Refusal(503, "Too many connections."))

    def _bound_silence(self, client: socket.socket | None) -> None:
        """Have the kernel drop a client whose machine vanished: it buffers what is small, and tries for 15 minutes."""
        if client is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.front.limits.write_s * 1_000))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: answers that come late are ignored."""
        del exc
        self._join_queue()
        if self._app is not None:
            self._app.lose()
            self._app = None
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
        app = self._app
        if app is not None:
            app.hang_up()
            if not app.body_whole:
                return False
        return bool(self.queue) and self._transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: take no more requests from it."""
        self._join_queue()
        self._write_paused = True
        if self._app is not None:
            self._app.flow.pause_writing()
        else:
            self._hold()
        self._expire_in(self.front.limits.write_s)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._write_paused = False
        if self._app is not None:
            self._app.flow.resume_writing()
        if self.queue:
            self.expires = NEVER
            if self._app is not None and self._receiving:
                self._expire_in(self.front.limits.request_s)
        elif not self._deaf and not self._parsing:
            self._all_answered()

    def shutdown(self) -> None:
        """uvicorn stops: finish what is in flight, then close; an idle connection closes at once."""
        self._join_queue()
        if self._app is not None and not self._app.body_whole:  # it waits for its body, which still comes in
            self._last = self._app
            return
        self._stop_listening()
        if self.queue:
            self._last = self.queue[-1]
            if not self._write_paused:
                self.expires = NEVER
        else:
            self._close()

    def expire(self) -> None:
        """Whatever this connection was given time for has taken too long. An exchange alone has time; a long body may
        come at a pace.
        """
        limits = self.front.limits
        if self.alone is not None:
            self._join_queue()
        elif self._write_paused or self._transport.is_closing():
            self._transport.abort()
        elif not self._receiving:
            self._close()
        elif self._app is not None and self._app.keeps_pace():
            self._expire_in(limits.request_s)
        else:
            self._refuse(Refusal(408, f"The request was not whole within {limits.request_s:g} s."))

    @property
    def waits(self) -> bool:
        """Whether no whole request is being answered."""
        return self.alone is None and not self.queue

    def go_on(self) -> None:
        """Begin the next request of those that wait behind one another."""
        if not self.queue and not self._transport.is_closing():
            self._all_answered()

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
            self._all_answered()

    def keep_for(self, request: AppRequest, *, last: bool) -> bool:
        """Whether the connection goes on after the application's request; not if it is to be its ``last`` one."""
        if last:
            self._last = request
        return self._last is None

    def app_answered(self, request: AppRequest) -> None:
        """The application's response is written whole."""
        self._app = None
        self._server_state.total_requests += 1
        if self._transport.is_closing():
            return
        if self._write_paused:
            self._hold()
        self.queue.popleft()
        self._lingers = not request.body_whole
        self._receiving = False
        if self._last is None and self._held and not self._parsing:
            self.front.go_on_later(self, self._loop)
        else:
            self._all_answered()

    # Requests

    def _read_requests(self) -> None:
        """Serve every whole request that the reader has taken."""
        reader = self.reader
        self._parsing = True
        try:
            if self._app is not None:
                self._feed_app(self._app)
            while reader.data and not (self._held or self._deaf):
                request = reader.read()
                if request is None:
                    break
                head, body = request
                if head.route != ELSEWHERE:
                    self._serve_fast(head, body)
                elif self._may_ask_app():
                    self._serve_app(head)
                else:
                    reader.put_back()
        except Refusal as refusal:
            self._refuse(refusal)
            return
        finally:
            self._parsing = False
        if self._deaf:
            reader.clear()
            return
        if self._held:
            reader.keep_rest()
            self._release()
            return
        if reader.awaits_continue:
            self._send_continue()
        if (reader.unread or reader.head is not None) and not self._receiving:
            self._receiving = True
            self._expire_in(self.front.limits.request_s)

    def _serve_fast(self, head: Head, body: bytes) -> None:
        front = self.front
        self._receiving = False
        self._waiting_bytes += len(body)
        self.expires = NEVER
        route = front.fast_path.routes[head.route]
        exchange = new_exchange(route.exchange_type, self, head, body)
        queue = self.queue
        queue.append(exchange)
        if not head.keep_alive:
            self._last = exchange
            self._deaf = True
        try:
            route.handle(exchange)
        except Exception:  # noqa: BLE001 - a boundary: the handler's mistake costs one request, not the others
            self._failed(exchange)
        if queue and (len(queue) >= front.limits.pipeline_depth or self._waiting_bytes > front.limits.in_flight_bytes):
            self._hold()

    def _may_ask_app(self) -> bool:
        """Whether earlier requests are answered, and the client takes the answers: the application writes by itself."""
        if self.queue:
            self._hold()
            self.expires = NEVER
            return False
        self._outbox.flush()
        return not self._held

    def _serve_app(self, head: Head) -> None:
        front, config = self.front, self._config
        self._receiving = False
        self.expires = NEVER
        app = self._app = AppRequest(self, head, self._transport, front.limits, front.responses)
        self.queue.append(app)
        if not head.keep_alive:
            self._last = app
        self._feed_app(app)
        scope = scope_of(head, self._transport, config.root_path, self._app_state)
        task = self._loop.create_task(app.run(config.loaded_app, scope))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _feed_app(self, app: AppRequest) -> None:
        reader = self.reader
        reader.hand_over(app)
        if not app.body_whole:
            if not self._receiving:
                self._receiving = True
                self._expire_in(self.front.limits.request_s)
            return
        self._receiving = False
        if not self._write_paused:
            self.expires = NEVER
        if self._last is app:
            reader.clear()
        elif reader.unread:
            self._hold()

    def _failed(self, exchange: Exchange) -> None:
        log.exception("the handler failed on %s", self.front.fast_path.routes[exchange.head.route].name)
        exchange.respond(500, PROBLEM_HEADERS, problem(500, "The node failed to answer."))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with a problem after all earlier answers, then close."""
        app = self._app
        if app is not None:  # what is wrong is its body
            self._app = None
            app.lose()
            self.queue.clear()
            if app.started:
                self.abort()
                return
        self._stop_listening()
        self._lingers = True
        self.expires = NEVER
        exchange = new_exchange(Exchange, self, msgspec.structs.replace(NO_HEAD, bodiless=refusal.bodiless), b"")
        self._last = exchange
        self.queue.append(exchange)
        exchange.respond(refusal.status, PROBLEM_HEADERS, problem(refusal.status, refusal.detail))

    def _send_continue(self) -> None:
        """Have a client that waits for it send its body, after all earlier answers."""
        if self.reader.awaits_continue and not self.queue:
            self.reader.awaits_continue = False
            self._outbox.flush()
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _stop_listening(self) -> None:
        """Forget what has come in and isn't a whole request."""
        self._deaf = True
        self._receiving = False
        self.reader.clear()
        self._note_unfinished()

    def _note_unfinished(self) -> None:
        """Tell the front how much is held of a request that isn't whole."""
        size = self.reader.held_bytes
        if self._app is not None and self._receiving:
            size += self._app.received
        if size != self.unfinished_bytes:
            self.front.hold(self, size)

    def _hold(self) -> None:
        self._receiving = False
        if not self._held:
            self._held = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

    def _release(self) -> None:
        """Undo ``_hold``, if everything in flight is answered and taken."""
        if self.queue or self._write_paused or self._deaf or self._transport.is_closing():
            return
        self._held = False
        self.reader.take_rest()
        self._read_requests()
        self._note_unfinished()
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()

    # Answers

    def _join_queue(self) -> None:
        alone = self.alone
        if alone is not None:
            self.alone = None
            self.queue.append(alone)
            self._waiting_bytes = len(alone.body)
            self.expires = NEVER

    def _response(self, exchange: Exchange, status: int, headers: bytes, body: bytes) -> bytes:
        head, close = exchange.head, exchange is self._last
        return self._responses.build_special(status, headers, body, close=close, old=head.old, bodiless=head.bodiless)

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

    def _all_answered(self) -> None:
        """Nothing is in flight any more: end, or go on with what waited for it."""
        if self._last is not None:
            self._finish()
            return
        self._waiting_bytes = 0
        if not self._receiving and not self._write_paused:
            self.expires = self.front.tick + self._idle_ticks
        if self._parsing:
            return
        self._send_continue()
        if self._held:
            self._release()
        if self._eof and not self.queue:
            self._close()

    # The end

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
