"""What comes in on a connection: whole requests to the fast path, everything else to the application, one at a time."""

import asyncio
from functools import partial
from typing import Any

import uvicorn

from tidegate.http_front.app_request import AppRequest, scope_of
from tidegate.http_front.chunked import ChunkedBody
from tidegate.http_front.connection import Connection, Outbox
from tidegate.http_front.exchange import ELSEWHERE, NO_HEAD, Head, new_exchange
from tidegate.http_front.front import NEVER, Front
from tidegate.http_front.responses import Refusal

_REMEMBERED_BYTES = 2048
_CHEAP_HEAD_BYTES = 4096
"""The beginning of a head this long is looked at with every packet; a longer one when it has grown by an eighth."""


class ServingConnection(Connection):
    """Adds requests that have company, a head that was not seen before, or no fast path. ``protocol_class`` makes it.

    ``_head`` is the head of the request whose body is awaited. ``_app`` is the request that the application answers: it
    is alone in the queue, and its body is fed as it comes.
    """

    __slots__ = ("_app", "_chunks", "_head", "_known_head", "_known_raw", "_look_at", "_owes_continue", "_parsing")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._app: AppRequest | None = None
        self._parsing = False
        self._head: Head | None = None
        self._chunks: ChunkedBody | None = None
        self._known_raw = b""
        self._known_head = NO_HEAD
        self._look_at = 0
        self._owes_continue = False

    # What the transport, uvicorn and the front call

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._app is not None:
            self._app.lose()
            self._app = None
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """The client sends no more."""
        stays = super().eof_received()
        if self._app is not None:
            self._app.hang_up()
            stays = stays and self._app.body_whole
        return stays

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: take no more requests from it."""
        self._join_queue()
        self._write_paused = True
        if self._app is not None:
            self._app.flow.pause_writing()
        else:
            self._receiving = False
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
        """uvicorn stops. A body that the application waits for still comes in."""
        if self._app is not None and not self._app.body_whole:
            self._last = self._app
        else:
            super().shutdown()

    def expire(self) -> None:
        """Whatever this connection was given time for has taken too long; but a long body may come, at a pace."""
        if self._receiving and not self._write_paused and self._app is not None and self._app.keeps_pace():
            self._expire_in(self.front.limits.request_s)
        else:
            super().expire()

    # What the application's request calls

    def keep_for(self, request: AppRequest, *, last: bool) -> bool:
        """Whether the connection goes on after ``request``; not if it is to be its ``last`` one."""
        if last:
            self._last = request
        return self._last is None

    def app_answered(self, request: AppRequest) -> None:
        """The response is written whole."""
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
            self._after_last_in_queue()

    def go_on(self) -> None:
        """Begin the next request of those that wait behind one another."""
        if not self.queue and not self._transport.is_closing():
            self._all_answered()

    # Inside: whole requests

    def _looked_lately(self, known: int) -> bool:
        unread = self.unread
        return len(unread) < self._look_at and unread.find(b"\r\n\r\n", max(0, known - 3)) < 0

    def _parse(self, data: bytes) -> None:
        """Serve every whole request in ``data``, which begins where a request, or what is left of a body, begins."""
        self._parsing = True
        self._look_at = 0
        try:
            app = self._app
            start = self._serve_requests(data) if app is None else self._feed_app(app, data, 0)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        finally:
            self._parsing = False
        if self._deaf:
            return
        if start < len(data):
            self.unread += data[start:]
        if self._held:
            self._go_on()
        elif (self.unread or self._head is not None) and not self._receiving:
            self._receiving = True
            self._expire_in(self.front.limits.request_s)

    def _serve_requests(self, data: bytes) -> int:
        """Returns where it stopped: at the end, at what isn't whole yet, or where the connection is held."""
        start, size = 0, len(data)
        while start < size:
            head = self._head
            if head is None:
                begin = start
                start = data.find(b"\r\n\r\n", begin) + 4
                if start < 4:
                    self.front.heads.check_beginning(data[begin:])
                    begun = size - begin
                    if begun > _CHEAP_HEAD_BYTES:
                        self._look_at = min(begun + begun // 8, self.front.limits.head_bytes + 1)
                    return begin
                raw = data[begin:start]
                head = self._known_head if raw == self._known_raw else self._read_head(raw)
                if head.route == ELSEWHERE and self.queue:
                    self._hold()
                    return begin
            if head.route == ELSEWHERE:
                start = self._serve_app(head, data, start)
            elif head.chunked:
                heads = self.front.heads
                chunks = self._chunks or ChunkedBody(heads.body_bytes(head), partial(heads.too_much, head.target))
                begun = start < size
                start = chunks.feed(data, start)
                if not chunks.complete:
                    self._chunks = chunks
                    self._await_body(head, 0, begun=begun)
                    return start
                self._chunks = None
                self._serve_fast(head, bytes(chunks.body))
            else:
                begin = start
                start += head.length
                if start > size:
                    self._await_body(head, head.length, begun=begin < size)
                    return begin
                self._serve_fast(head, data[begin:start])
            if self._held or self._deaf or self._app is not None:
                return start
        return start

    def _serve_fast(self, head: Head, body: bytes) -> None:
        self._head = None
        self._need = 0
        self._receiving = self._owes_continue = False
        self._waiting_bytes += len(body)
        self.expires = NEVER
        route = self.front.fast_path.routes[head.route]
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
        limits = self.front.limits
        if len(queue) >= limits.pipeline_depth or self._waiting_bytes > limits.in_flight_bytes:
            self._hold()

    def _read_head(self, raw: bytes) -> Head:
        if raw.startswith(b"\r\n"):  # one empty line before a request is ignored (RFC 9112, section 2.2)
            raw = raw[2:]
        try:
            head = self.front.heads.parse(raw)
        except Refusal as refusal:
            refusal.bodiless = raw.startswith(b"HEAD ")
            raise
        if len(raw) <= _REMEMBERED_BYTES:
            self._known_raw = raw
            self._known_head = head
        return head

    def forget_head(self) -> None:
        """Read the next head anew: what it means has changed."""
        self._known_raw = b""

    def _await_body(self, head: Head, need: int, *, begun: bool) -> None:
        if self._head is None and head.expects_continue and not begun:
            self._owes_continue = True
            if not self.queue:
                self._send_continue()
        self._head = head
        self._need = need

    def _send_continue(self) -> None:
        self._owes_continue = False
        self._outbox.flush()
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _stop_listening(self) -> None:
        super()._stop_listening()
        self.unread.clear()
        self._head = self._chunks = None
        self._owes_continue = False
        self._note_unfinished()

    def _note_unfinished(self) -> None:
        size = len(self.unread)
        if self._chunks is not None:
            size += len(self._chunks.body)
        if self._app is not None and self._receiving:
            size += self._app.received
        if size != self.unfinished_bytes:
            self.front.hold(self, size)

    # Inside: the application's request

    def _serve_app(self, head: Head, data: bytes, start: int) -> int:
        front, config = self.front, self._config
        self._outbox.flush()  # earlier answers: from here on the application writes to the transport
        self._receiving = False
        self.expires = NEVER
        app = self._app = AppRequest(self, head, self._transport, front.limits, front.responses)
        self.queue.append(app)
        if not head.keep_alive:
            self._last = app
        start = self._feed_app(app, data, start)
        scope = scope_of(head, self._transport, config.root_path, self._app_state)
        task = self._loop.create_task(app.run(config.loaded_app, scope))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)
        return start

    def _feed_app(self, app: AppRequest, data: bytes, start: int) -> int:
        start = app.take(data, start)
        if not app.body_whole:
            if not self._receiving:
                self._receiving = True
                self._expire_in(self.front.limits.request_s)
            return start
        self._receiving = False
        if not self._write_paused:
            self.expires = NEVER
        if self._last is app:
            return len(data)
        if start < len(data):
            self._hold()
        return start

    def _refuse(self, refusal: Refusal) -> None:
        app = self._app
        if app is not None:  # what is wrong is its body
            self._app = None
            app.lose()
            self.queue.clear()
            if app.started:
                self.abort()
                return
        super()._refuse(refusal)

    # Holding back

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

    def _all_answered(self) -> None:
        self._waiting_bytes = 0
        if not self._receiving and not self._write_paused:
            self.expires = self.front.tick + self._idle_ticks
        if self._parsing:
            return
        if self._owes_continue:
            self._send_continue()
        if self._held:
            self._go_on()
        if self._eof and not self.queue:
            self._close()

    def _go_on(self) -> None:
        """Go on where ``_hold`` stopped, once everything in flight is answered and taken."""
        if self.queue or self._write_paused or self._deaf or self._transport.is_closing():
            return
        self._held = False
        data = bytes(self.unread)
        self.unread.clear()
        self._parse(data)
        self._note_unfinished()
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()


def protocol_class(front: Front) -> type[asyncio.Protocol]:
    """For ``uvicorn.Config(http=...)``."""
    return type("BoundConnection", (ServingConnection,), {"__slots__": (), "front": front, "outbox": Outbox()})


def config_of(application: Any, front: Front, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration of one port; ``options`` are address, TLS, lifespan and the time to stop in."""
    return uvicorn.Config(
        application, http=protocol_class(front), ws="none", access_log=False, log_config=None, server_header=False,
        proxy_headers=False, **options,
    )  # fmt: skip
