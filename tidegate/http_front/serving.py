"""What comes in on a connection: whole requests to the fast path, everything else to the application, one at a time."""

import asyncio
from functools import partial
from typing import Any

import uvicorn
from uvicorn.config import Config
from uvicorn.server import ServerState

from tidegate.http_front.app_connection import AppConnection
from tidegate.http_front.chunked import ChunkedBody
from tidegate.http_front.connection import Outbox
from tidegate.http_front.exchange import ELSEWHERE, NO_HEAD, Head, new_exchange
from tidegate.http_front.front import NEVER, Front
from tidegate.http_front.responses import Refusal

_REMEMBERED_BYTES = 2048
_CHEAP_HEAD_BYTES = 4096
"""The beginning of a head this long is looked at with every packet; a longer one when it has grown by an eighth."""


class ServingConnection(AppConnection):
    """Adds requests that have company, or a head that was not seen before. Made by ``protocol_class``.

    ``_head`` is the head of the request whose body is awaited.
    """

    __slots__ = ("_chunks", "_head", "_known_head", "_known_raw", "_look_at", "_owes_continue")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head: Head | None = None
        self._chunks: ChunkedBody | None = None
        self._known_raw = b""
        self._known_head = NO_HEAD
        self._look_at = 0
        self._owes_continue = False

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

    # Holding back

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
