"""The receiving half of an HTTP/2 connection of a server (RFC 9113), without I/O: bytes in, whole requests out.

It is what a server of small requests and answers needs, and no more: no push, no priorities, no answer in parts. A
frame that brings no request further costs ``patience``, so that no peer can have much done for little.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from data_plane.rls import frames
from data_plane.rls.frames import (
    DEFAULT_WINDOW,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_HEADER,
    FRAME_SIZE_ERROR,
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    PREFACE,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    STREAM_MASK,
    ConnectionFault,
    StreamFault,
)
from data_plane.rls.headers import Head, HeaderReader, MalformedError
from data_plane.rls.limits import Http2Limits
from data_plane.rls.sending import SendingConnection, Stream

_REMEMBERED_GAPS: Final = 16
_PREFACE_LOOKS: Final = 2


class Handler(Protocol):
    """What answers requests."""

    stream_type: type[Stream]

    def understand(self, head: Head) -> None:
        """A head that was not seen before: fill in ``meaning`` and ``answered_early``."""
        ...

    def serve(self, streams: Sequence[Any], /) -> None:
        """Answer requests that came together, now or later. One that is answered early may have no body."""
        ...

    def refuse_large(self, stream: Any, /) -> None:
        """Answer a request whose body is more than is kept of it."""
        ...


class Http2Connection(SendingConnection):
    """``receive`` takes bytes as they come; ``look`` is to be called every ``limits.stall_s`` seconds."""

    def __init__(self, handler: Handler, limits: Http2Limits, wake: Callable[[], object]) -> None:
        super().__init__(limits, wake)
        self._handler = handler
        self._new_stream = handler.stream_type
        self._unread = b""
        self._has_preface = False
        self._has_settings = False
        self._reader = HeaderReader(limits)
        self._block: bytearray | None = None
        """A header block that goes on in a CONTINUATION frame; its stream and flags."""
        self._block_of = self._block_flags = 0
        self._last_id = 0
        self._gaps: list[range] = []
        """Streams that the peer has left out lately: nothing may come for them."""
        self._bodies: dict[int, bytearray] = {}
        self._window = DEFAULT_WINDOW
        self._stream_windows: dict[int, int] = {}
        """What is left of the windows of ``_bodies``."""
        self._ready: list[Stream] = []
        self._has_moved = False
        self._looks = self._idle_looks = self._mark = 0
        self._stuck: set[int] = set()
        self._block_stuck = False
        self.is_draining = False
        self._rare: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._on_data, frames.HEADERS: self._on_headers, frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_reset, frames.SETTINGS: self._on_settings, frames.PUSH_PROMISE: self._on_push,
            frames.PING: self._on_ping, frames.GOAWAY: self._on_goaway, frames.WINDOW_UPDATE: self._on_window,
            frames.CONTINUATION: self._on_continuation,
        }  # fmt: skip
        self._put(
            frames.settings({
                frames.MAX_CONCURRENT_STREAMS: limits.streams, frames.MAX_HEADER_LIST_SIZE: limits.header_bytes,
            })
        )  # fmt: skip
        self._refill()

    def receive(self, data: bytes) -> None:
        """Take what has come, and have the requests answered that are whole with it."""
        if self.ended:
            return
        if self._unread:
            data = self._unread + data
            self._unread = b""
        try:
            if self._has_preface or self._begins(data):
                self._read_frames(data)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        ready = self._ready
        if ready:
            self._ready = []
            streams = self.streams
            # One that the same read has taken back is not worth a decision.
            self._handler.serve([stream for stream in ready if streams.get(stream.id) is stream])

    def lost(self) -> None:
        """The peer is gone: answers that come late are ignored."""
        self.ended = True
        self.streams.clear()
        self._ready.clear()

    def drain(self) -> None:
        """Ask the peer to send further requests elsewhere; those that come are answered."""
        if not self.is_draining and not self.ended:
            self.is_draining = True
            self._put(frames.goaway(STREAM_MASK, frames.NO_ERROR))

    def finish(self) -> None:
        """Take no more requests, and end when those in flight are answered."""
        if not self._is_last and not self.ended:
            self._is_last = self.is_draining = True
            self._put(frames.goaway(self._last_id, frames.NO_ERROR))
            self.ended = not self.streams

    def look(self) -> None:
        """End what has come no further since the last look; let patience grow."""
        if self.ended:
            return
        limits = self.limits
        self._looks += 1
        self.patience = min(limits.patience, self.patience + int(limits.patience_per_s * limits.stall_s))
        try:
            self._end_stalled()
        except ConnectionFault as fault:
            self._fail(fault)
            return
        self._idle_looks = 0 if self.streams or self._mark != self._last_id else self._idle_looks + 1
        self._mark = self._last_id
        if self.is_draining and self._idle_looks:
            self.finish()
        elif self._idle_looks * limits.stall_s >= limits.idle_s:
            self.drain()

    def _end_stalled(self) -> None:
        if not self._has_preface and self._looks >= _PREFACE_LOOKS:
            raise ConnectionFault(PROTOCOL_ERROR, "the preface did not come")
        if self._unread and not self._has_moved:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a frame did not come whole")
        if self._block is not None and self._block_stuck:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block did not come whole")
        self._has_moved = False
        self._block_stuck = self._block is not None
        for stream in [one for one in self.streams.values() if one.body is None and one.id <= self._mark]:
            self._end(stream.id, frames.CANCEL)
        for stuck in self._stuck & self._unsent.keys():
            self._end(stuck, frames.CANCEL)
        self._stuck = set(self._unsent)

    def _end(self, number: int, code: int) -> None:
        self._bodies.pop(number, None)
        self._stream_windows.pop(number, None)
        self._reset(number, code)

    def _fail(self, fault: ConnectionFault) -> None:
        self._put(frames.goaway(self._last_id, fault.code, str(fault)))
        self.lost()

    # Frames

    def _begins(self, data: bytes) -> bool:
        """Whether the preface is whole; what follows it is in ``_unread`` then no more than a read."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise ConnectionFault(PROTOCOL_ERROR, "only HTTP/2 with prior knowledge is spoken here")
        if len(data) < len(PREFACE):
            self._unread = data
            return False
        return True

    def _read_frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._has_preface:
            self._has_preface = True
            at = len(PREFACE)
        streams, ready = self.streams, self._ready
        known = self._reader.known
        most = self.limits.streams
        unpack = FRAME_HEADER.unpack_from
        while end - at >= HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack(data, at)
            size = high << 16 | low
            if size > MAX_FRAME_BYTES:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame is over {MAX_FRAME_BYTES} bytes")
            begin = at + HEADER_BYTES
            stop = begin + size
            if stop > end:
                break
            at = stop
            payload = data[begin:stop]
            # The commonest frames, in a straight line: a request with a head that is known, and its body in one piece.
            if kind == 0:
                stream = streams.get(stream_id)
                if (
                    flags == END_STREAM and stream is not None and stream.body is None and self._block is None
                    and stream_id not in self._bodies and stream.head.content_length in (None, size)
                    and size <= self._window
                ):  # fmt: skip
                    self._window -= size
                    if self._window < self.limits.window >> 1:
                        self._refill()
                    stream.body = payload
                    ready.append(stream)
                    continue
            elif kind == 1 and flags == 4:
                head = known.get(payload)
                if (
                    head is not None and stream_id == self._last_id + 2 and self._block is None
                    and len(streams) < most and not self._is_last and not head.answered_early and self._has_settings
                ):  # fmt: skip
                    self._last_id = stream_id
                    stream = self._new_stream()
                    stream.connection = self
                    stream.head = head
                    stream.body = None
                    stream.id = stream_id
                    streams[stream_id] = stream
                    continue
            self._read_rare(kind, flags, stream_id & STREAM_MASK, payload)
        self._has_moved = True
        if at < end:
            self._unread = data[at:]

    def _read_rare(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._has_settings and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS did not come first")
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block_of):
            raise ConnectionFault(PROTOCOL_ERROR, "a header block was interrupted")
        take = self._rare.get(kind)
        try:
            if take is None:
                self._charge()
            else:
                take(flags, stream_id, payload)
        except StreamFault as fault:
            self._end(fault.stream_id, fault.code)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more bytes than the connection's window")
        if self._window < self.limits.window >> 1:
            self._refill()
        self._check_opened(stream_id)
        data = frames.unpadded(flags, payload)
        stream = self.streams.get(stream_id)
        if stream is None or stream.body is not None:
            self._charge()
            if stream_id in self._resets:
                return
            raise StreamFault(stream_id, STREAM_CLOSED)
        left = self._stream_windows.get(stream_id, DEFAULT_WINDOW) - size
        if left < 0:
            raise StreamFault(stream_id, FLOW_CONTROL_ERROR)
        body = self._bodies.setdefault(stream_id, bytearray())
        body += data
        if len(body) > self.limits.body_bytes or sum(map(len, self._bodies.values())) > self.limits.buffered_bytes:
            self._drop_body(stream_id)
            self._handler.refuse_large(stream)
        elif flags & END_STREAM:
            self._end_request(stream)
        else:
            self._charge()
            if left < DEFAULT_WINDOW >> 1:
                self._put(frames.window_update(stream_id, DEFAULT_WINDOW - left))
                left = DEFAULT_WINDOW
            self._stream_windows[stream_id] = left

    def _end_request(self, stream: Stream) -> None:
        body = bytes(self._bodies.get(stream.id, b""))
        self._drop_body(stream.id)
        if stream.head.content_length not in (None, len(body)):
            raise StreamFault(stream.id, PROTOCOL_ERROR)
        stream.body = body
        self._ready.append(stream)

    def _drop_body(self, stream_id: int) -> None:
        self._bodies.pop(stream_id, None)
        self._stream_windows.pop(stream_id, None)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "requests have odd streams")
        block = frames.unpadded(flags, payload)
        if flags & frames.PRIORITIZED:
            if len(block) < 5:
                raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            _check_dependency(stream_id, block)
            block = block[5:]
        if flags & frames.END_HEADERS:
            self._on_block(flags, stream_id, block)
        else:
            self._charge()
            self._block = bytearray(block)
            self._block_of, self._block_flags = stream_id, flags
            self._block_stuck = False

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION continues nothing")
        self._charge()
        self._block += payload
        if len(self._block) > self.limits.header_bytes:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"a header block is over {self.limits.header_bytes} bytes")
        if flags & frames.END_HEADERS:
            block, self._block = bytes(self._block), None
            self._on_block(self._block_flags, stream_id, block)

    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        """A header block is whole. It is decoded whatever becomes of it: the table must stay in step."""
        stream = self.streams.get(stream_id)
        if stream is not None or stream_id <= self._last_id:
            fields = self._reader.decode(block)
            if stream is None:
                self._charge()
                if stream_id in self._resets:
                    return
                left_out = any(stream_id in gap for gap in self._gaps)
                raise ConnectionFault(PROTOCOL_ERROR if left_out else STREAM_CLOSED, "HEADERS on a closed stream")
            self._on_trailers(stream, flags, fields)
            return
        if stream_id != self._last_id + 2:
            self._gaps.append(range(self._last_id + 1, stream_id))
            del self._gaps[:-_REMEMBERED_GAPS]
        self._last_id = stream_id
        if self._is_last:
            self._reader.decode(block)
            self._forget(stream_id)
            return
        try:
            head = self._reader.read(block)
        except MalformedError:
            raise StreamFault(stream_id, PROTOCOL_ERROR) from None
        if len(self.streams) >= self.limits.streams:
            raise StreamFault(stream_id, frames.REFUSED_STREAM)
        if head.meaning is None:
            self._handler.understand(head)
        stream = self._new_stream()
        stream.connection = self
        stream.head = head
        stream.body = None
        stream.id = stream_id
        self.streams[stream_id] = stream
        if flags & END_STREAM:
            self._end_request(stream)
        elif head.answered_early:
            self._ready.append(stream)

    def _on_trailers(self, stream: Stream, flags: int, fields: list[tuple[bytes, bytes]]) -> None:
        if stream.body is not None:
            raise StreamFault(stream.id, STREAM_CLOSED)
        if not flags & END_STREAM:
            raise StreamFault(stream.id, PROTOCOL_ERROR)
        try:
            self._reader.check_trailers(fields)
        except MalformedError:
            raise StreamFault(stream.id, PROTOCOL_ERROR) from None
        self._end_request(stream)

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "PRIORITY is of a stream")
        self._charge()
        if len(payload) != 5:
            raise StreamFault(stream_id, FRAME_SIZE_ERROR)
        _check_dependency(stream_id, payload)

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "RST_STREAM has 4 bytes")
        self._check_opened(stream_id)
        self._charge()
        self._drop_body(stream_id)
        self._drop(stream_id)
        if self._is_last and not self.streams:
            self.ended = True

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS is of the connection")
        self._charge()
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS has 6 bytes for each")
        if flags & frames.ACK:
            return
        self._has_settings = True
        window = self._initial_window
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "the initial window is too wide")
                window = value
            elif name == frames.ENABLE_PUSH and value > 1:
                raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
            elif name == frames.PEER_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 1 << 24:
                raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range")
        self._put(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._set_initial_window(window)

    def _on_push(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ConnectionFault(PROTOCOL_ERROR, "clients promise nothing")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "PING is of the connection")
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "PING has 8 bytes")
        self._charge()
        if not flags & frames.ACK:
            self._put(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "GOAWAY is of the connection")
        if len(payload) < 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "GOAWAY has 8 bytes at least")
        self._charge()

    def _on_window(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "WINDOW_UPDATE has 4 bytes")
        self._charge()
        increment = frames.number(payload) & STREAM_MASK
        if not stream_id:
            if not increment:
                raise ConnectionFault(PROTOCOL_ERROR, "a window is widened by nothing")
            self._widen(increment)
            return
        self._check_opened(stream_id)
        if not increment:
            raise StreamFault(stream_id, PROTOCOL_ERROR)
        if stream_id in self.streams:
            self._widen_stream(stream_id, increment)

    def _check_opened(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id > self._last_id:
            raise ConnectionFault(PROTOCOL_ERROR, "the stream was never opened")

    def _refill(self) -> None:
        """Let the peer send as much again as the connection's window has when it is whole."""
        self._put(frames.window_update(0, self.limits.window - self._window))
        self._window = self.limits.window


def _check_dependency(stream_id: int, priority: bytes) -> None:
    if frames.number(priority[:4]) & STREAM_MASK == stream_id:
        raise StreamFault(stream_id, PROTOCOL_ERROR)
