"""One connection of the decision lane: whole requests to the door, everything else handed over to uvicorn for good."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from data_plane.api.lane.beat import NEVER
from data_plane.api.lane.chunked import ChunkedBody
from data_plane.api.lane.door import new_exchange
from data_plane.api.lane.head import NO_HEAD, Head
from data_plane.api.lane.quick import QuickConnection
from data_plane.api.lane.refusal import Refusal
from data_plane.api.lane.successor import SuccessorProtocol

_REMEMBERED_BYTES = 2048


class LaneConnection(QuickConnection):
    """A uvicorn HTTP protocol. Made by ``Lane.protocol_class``.

    ``_unread`` holds bytes from the beginning of a request (or of what is left of its body) on. While ``_held``,
    nothing is parsed or read. ``_head`` is the head of the request whose body is awaited.
    """

    __slots__ = (
        "_chunks",
        "_handing_over",
        "_head",
        "_held",
        "_known_head",
        "_known_raw",
        "_need",
        "_owes_continue",
        "_parsing",
        "_serve",
        "_unread",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._unread = bytearray()
        self._need = 0
        self._head: Head | None = None
        self._chunks: ChunkedBody | None = None
        self._known_raw = b""
        self._known_head = NO_HEAD
        self._held = self._parsing = self._handing_over = self._owes_continue = False
        door = self.lane.door
        self._serve = (door.check, door.check_batch, door.authorize)

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        """Parse what came, together with what was left."""
        if self._deaf:
            return
        unread = self._unread
        if self._alone is not None:
            self._join_queue()
        elif not (self._queue or unread or self._receiving or self._held):
            start = data.find(b"\r\n\r\n") + 4
            head = self._common.get(data[:start])
            if head is not None and len(data) == start + head.length:
                self._serve_alone(head, data[start:])
                return
        if unread or self._held:
            unread += data
            if self._held or len(unread) < self._need:
                return
            data = bytes(unread)
            unread.clear()
        self._parse(data)

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: take no more requests from it."""
        self._join_queue()
        self._write_paused = True
        self._receiving = False
        self._hold()
        self._expire_in(self.lane.limits.write_s)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._write_paused = False
        if self._queue:
            self.expires = NEVER
        elif not self._deaf and not self._parsing:
            self._all_answered()

    # Requests

    def _parse(self, data: bytes) -> None:
        """Serve every whole request in ``data``, which begins where a request, or what is left of a body, begins."""
        self._parsing = True
        try:
            start = self._serve_whole_requests(data)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        finally:
            self._parsing = False
        if self._deaf:
            return
        if start < len(data):
            self._unread += data[start:]
        if self._held:
            self._go_on()
        elif (self._unread or self._head is not None) and not self._receiving:
            self._receiving = True
            self._expire_in(self.lane.limits.request_s)

    def _serve_whole_requests(self, data: bytes) -> int:
        """Returns where it stopped: at the end, at what isn't whole yet, or where the connection is held."""
        start, size = 0, len(data)
        while start < size:
            head = self._head
            if head is None:
                begin = start
                start = data.find(b"\r\n\r\n", begin) + 4
                if start < 4:
                    self.lane.heads.check_beginning(data[begin:])
                    return begin
                raw = data[begin:start]
                head = self._known_head if raw == self._known_raw else self._read_head(raw)
                if head.route < 0:
                    self._handing_over = True
                    self._hold()
                    return begin
            if head.chunked:
                chunks = self._chunks or ChunkedBody(self.lane.heads.body_bytes(head))
                begun = start < size
                start = chunks.feed(data, start)
                if not chunks.complete:
                    self._chunks = chunks
                    self._await_body(head, 0, begun=begun)
                    return start
                body = bytes(chunks.body)
                self._chunks = None
            else:
                begin = start
                start += head.length
                if start > size:
                    self._await_body(head, head.length, begun=begin < size)
                    return begin
                body = data[begin:start]
            self._serve_request(head, body)
            if self._held or self._deaf:
                return start
        return start

    def _serve_request(self, head: Head, body: bytes) -> None:
        self._head = None
        self._need = 0
        self._receiving = self._owes_continue = False
        self._waiting_bytes += len(body)
        self.expires = NEVER
        exchange = new_exchange(self.lane.exchange_types[head.route], self, head, body)
        queue = self._queue
        queue.append(exchange)
        if not head.keep_alive:
            self._last = exchange
            self._deaf = True
        try:
            self._serve[head.route](exchange)
        except Exception:  # noqa: BLE001 - a boundary: the door's mistake costs one request, not the others
            self._failed(exchange)
        limits = self.lane.limits
        if len(queue) >= limits.pipeline_depth or self._waiting_bytes > limits.in_flight_bytes:
            self._hold()

    def _read_head(self, raw: bytes) -> Head:
        if raw.startswith(b"\r\n"):  # one empty line before a request is ignored (RFC 9112, section 2.2)
            raw = raw[2:]
        try:
            head = self.lane.heads.parse(raw)
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
            if not self._queue:
                self._send_continue()
        self._head = head
        self._need = need

    def _send_continue(self) -> None:
        self._owes_continue = False
        self._outbox.flush()
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _stop_listening(self) -> None:
        super()._stop_listening()
        self._unread.clear()
        self._head = self._chunks = None
        self._owes_continue = False

    # Holding back and handing over

    def _all_answered(self) -> None:
        self._waiting_bytes = 0
        if not self._receiving and not self._write_paused:
            self.expires = self.lane.beat.tick + self._idle_ticks
        if self._parsing:
            return
        if self._owes_continue:
            self._send_continue()
        if self._held:
            self._go_on()
        if self._eof and not self._queue and not self._handing_over:
            self._close()

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

    def _go_on(self) -> None:
        """Go on where ``_hold`` stopped, once everything in flight is answered and taken."""
        if self._queue or self._write_paused or self._deaf or self._transport.is_closing():
            return
        if self._handing_over:
            self._hand_over()
            return
        self._held = False
        data = bytes(self._unread)
        self._unread.clear()
        self._parse(data)
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()

    def _hand_over(self) -> None:
        """From here on the connection is uvicorn's, beginning with the request that is not ours."""
        self._outbox.flush()
        transport, data = self._transport, bytes(self._unread)
        self._leave()
        successor = SuccessorProtocol(self._config, self._server_state, self._app_state, self._loop)
        successor.watch(self.lane.beat, self.lane.limits, self.lane.responses)
        successor.connection_made(transport)
        transport.set_protocol(successor)
        transport.resume_reading()
        successor.data_received(data)
