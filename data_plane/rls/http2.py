"""An HTTP/2 connection of a server (RFC 9113), without I/O: bytes in, whole requests out. ``sending.py`` sends.

It is what a server of small requests and answers needs, and no more: no push, no priorities, no answer in parts. A
frame that brings no request further costs ``patience``, so that no peer can have much done for little.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from data_plane.rls import frames
from data_plane.rls.compression import Field
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
    Http2Error,
    Http2Limits,
    StreamError,
)
from data_plane.rls.headers import Head, HeaderReader, MalformedError
from data_plane.rls.sending import SendingConnection, Stream

_DRAIN_PING: Final = b"draining"
"""Its ACK shows that the peer has read the GOAWAY before it, and that its earlier requests have arrived."""
_REMEMBERED_GAPS: Final = 16
_PREFACE_LOOKS: Final = 2
_WIDENINGS: Final = 2
"""Windows that a request may widen: gRPC's clients widen the connection's and the stream's with each."""


class Handler(Protocol):
    """What answers requests."""

    stream_type: type[Stream]

    def understand(self, head: Head) -> None:
        """Fill in ``meaning`` and ``answered_early`` of a new head."""
        ...

    def serve(self, streams: Sequence[Any], /) -> None:
        """Answer requests that arrived together, now or later. A request that is answered early may have no body."""
        ...

    def refuse_large(self, stream: Any, /) -> None:
        """Answer a request whose body is too large."""
        ...


class Http2Connection(SendingConnection):
    """Call ``receive`` with bytes as they arrive, and ``end_stalled`` every ``limits.stall_s`` seconds.

    Windows grow with what arrives; the size of bodies is bounded instead.
    """

    def __init__(self, handler: Handler, limits: Http2Limits, wake: Callable[[], object]) -> None:
        super().__init__(limits, wake)
        self._handler = handler
        self._new_stream = handler.stream_type
        self._takers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._on_data, frames.HEADERS: self._on_headers, frames.CONTINUATION: self._on_continuation,
            frames.PRIORITY: self._on_priority, frames.RST_STREAM: self._on_reset, frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push, frames.PING: self._on_ping, frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window,
        }  # fmt: skip

        # Frames
        self.unread = b""
        """The beginning of a frame that has not come whole."""
        self._has_preface = self.has_settings = False
        self._last_id = -1
        """The newest stream that the peer has opened; the first is 1."""
        self._gaps: list[range] = []
        """Streams that the peer skipped lately; frames for them are errors."""

        # Requests
        self.reader = HeaderReader(limits)
        self.block: bytearray | None = None
        """A header block that continues in the next frame, with its stream and flags."""
        self._block_of = self._block_flags = 0
        self.bodies: dict[int, bytearray] = {}
        """Bodies of several frames, by stream, as far as they have come."""
        self._taken = 0
        """Bytes of DATA since the connection's last WINDOW_UPDATE."""
        self._taken_of: dict[int, int] = {}
        """The same by stream."""
        self._ready: list[Stream] = []
        """Complete requests."""

        # Stalls: what was so at the last look
        self._looks = self._idle_looks = 0
        self._has_moved = False
        """A frame has come whole since."""
        self._seen_id = 0
        self._seen_block: bytearray | None = None
        self._seen_unsent: set[int] = set()

        # The end
        self.is_draining = False
        self._knows_of_drain = self._wants_end = False

        self._put(
            frames.settings({
                frames.MAX_CONCURRENT_STREAMS: limits.streams, frames.MAX_HEADER_LIST_SIZE: limits.header_bytes,
            })
        )  # fmt: skip
        self._put(frames.window_update(0, limits.window - DEFAULT_WINDOW))

    def receive(self, data: bytes) -> None:
        """Take bytes, and answer the requests that they complete."""
        if self.ended:
            return
        if self.unread:
            data = self.unread + data
            self.unread = b""
        try:
            if self._has_preface or self._begins(data):
                self._read_frames(data)
        except Http2Error as fault:
            self._fail(fault)
            return
        ready = self._ready
        if ready:
            self._ready = []
            streams = self.streams
            # The same read may have reset some of them.
            self._handler.serve([stream for stream in ready if streams.get(stream.id) is stream])

    def lost(self) -> None:
        """The peer is gone; late answers are ignored."""
        self.ended = True
        self.unread, self.block = b"", None
        self._ready.clear()
        for number in list(self.streams):
            self._drop(number)

    def end_stalled(self) -> None:
        """End what made no progress since the last call; let patience recover."""
        if self.ended:
            return
        limits = self.limits
        self._looks += 1
        self.patience = min(limits.patience, self.patience + int(limits.patience_per_s * limits.stall_s))
        try:
            self._end_stuck()
        except Http2Error as fault:
            self._fail(fault)
            return
        self._idle_looks = 0 if self.streams or self._seen_id != self._last_id else self._idle_looks + 1
        self._has_moved = False
        self._seen_id = self._last_id
        self._seen_block = self.block
        self._seen_unsent = set(self.unsent)
        if self.is_draining and self._idle_looks:
            self.finish()
        elif self._idle_looks * limits.stall_s >= limits.idle_s:
            self.drain()

    def _end_stuck(self) -> None:
        if not self._has_preface and self._looks >= _PREFACE_LOOKS:
            raise Http2Error(PROTOCOL_ERROR, "the preface did not come")
        if self.unread and not self._has_moved:
            raise Http2Error(ENHANCE_YOUR_CALM, "a frame did not come whole")
        if self.block is not None and self.block is self._seen_block:
            raise Http2Error(ENHANCE_YOUR_CALM, "a header block did not come whole")
        for stream in [one for one in self.streams.values() if one.body is None and one.id <= self._seen_id]:
            self._reset(stream.id, frames.CANCEL)
        for number in self._seen_unsent & self.unsent.keys():
            self._reset(number, frames.CANCEL)

    def drain(self) -> None:
        """Ask the peer to send further requests elsewhere; requests that still arrive are answered (RFC 9113, 6.8)."""
        if not self.is_draining and not self.ended:
            self.is_draining = True
            self._put(frames.goaway(STREAM_MASK, frames.NO_ERROR) + frames.frame(frames.PING, 0, 0, _DRAIN_PING))

    def finish(self) -> None:
        """Refuse requests once the peer knows of the drain, and end once all in flight are answered.

        A second call ends a peer that never said that it knows.
        """
        self.drain()
        if not self._knows_of_drain and not self._wants_end:
            self._wants_end = True
        elif not self._is_last and not self.ended:
            self._is_last = True
            self._put(frames.goaway(max(self._last_id, 0), frames.NO_ERROR))
            self.ended = not self.streams

    def _fail(self, fault: Http2Error) -> None:
        self._put(frames.goaway(max(self._last_id, 0), fault.code, str(fault)))
        self.lost()

    # Frames

    def _begins(self, data: bytes) -> bool:
        """Whether the preface is complete."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise Http2Error(PROTOCOL_ERROR, "only HTTP/2 with prior knowledge is spoken here")
        if len(data) < len(PREFACE):
            self.unread = data
            return False
        return True

    def _read_frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._has_preface:
            self._has_preface = True
            at = len(PREFACE)
        streams, ready = self.streams, self._ready
        known = self.reader.known
        most, half = self.limits.streams, self.limits.window >> 1
        unpack = FRAME_HEADER.unpack_from
        while end - at >= HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack(data, at)
            size = high << 16 | low
            if size > MAX_FRAME_BYTES:
                raise Http2Error(FRAME_SIZE_ERROR, f"a frame is over {MAX_FRAME_BYTES} bytes")
            begin = at + HEADER_BYTES
            stop = begin + size
            if stop > end:
                break
            at = stop
            payload = data[begin:stop]
            # Fast path: a request with a cached head, and its body in one frame.
            if kind == 0:
                stream = streams.get(stream_id)
                if (
                    flags == END_STREAM and stream is not None and stream.body is None and self.block is None
                    and stream_id not in self.bodies and stream.head.content_length in (None, size)
                    and not stream.head.answered_early
                ):  # fmt: skip
                    self._taken += size
                    if self._taken > half:
                        self._refill()
                    stream.body = payload
                    ready.append(stream)
                    continue
            elif kind == 1 and flags == 4:
                head = known.get(payload)
                if (
                    head is not None and stream_id == self._last_id + 2 and self.block is None
                    and len(streams) < most and not self._is_last and not head.answered_early and self.has_settings
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
        if at:
            self._has_moved = True
        if at < end:
            self.unread = data[at:]

    def _read_rare(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self.has_settings and (kind != frames.SETTINGS or flags & frames.ACK):
            raise Http2Error(PROTOCOL_ERROR, "SETTINGS did not come first")
        if self.block is not None and (kind != frames.CONTINUATION or stream_id != self._block_of):
            raise Http2Error(PROTOCOL_ERROR, "a header block was interrupted")
        take = self._takers.get(kind)
        try:
            if take is None:
                self._charge()
            else:
                take(flags, stream_id, payload)
        except StreamError as fault:
            self._reset(fault.stream_id, fault.code)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise Http2Error(PROTOCOL_ERROR, "requests have odd streams")
        block = frames.unpadded(flags, payload)
        if flags & frames.PRIORITIZED:
            if len(block) < 5:
                raise Http2Error(FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            check_dependency(stream_id, block)
            block = block[5:]
        if flags & frames.END_HEADERS:
            self._on_block(flags, stream_id, block)
        else:
            self._charge()
            self._block_of, self._block_flags = stream_id, flags
            self._add_to_block(block)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self.block is None:
            raise Http2Error(PROTOCOL_ERROR, "CONTINUATION continues nothing")
        self._charge()
        block = self._add_to_block(payload)
        if flags & frames.END_HEADERS:
            self.block = None
            self._on_block(self._block_flags, stream_id, bytes(block))

    def _add_to_block(self, part: bytes) -> bytearray:
        block = self.block = bytearray() if self.block is None else self.block
        block += part
        if len(block) > self.limits.header_bytes:
            raise Http2Error(ENHANCE_YOUR_CALM, f"a header block is over {self.limits.header_bytes} bytes")
        return block

    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        """A header block is complete. It is decoded in any case, to keep the table in step."""
        if stream_id <= self._last_id:
            self._on_trailers(flags, stream_id, self.reader.decode(block))
            return
        if stream_id != self._last_id + 2:
            self._gaps.append(range(self._last_id + 1, stream_id))
            del self._gaps[:-_REMEMBERED_GAPS]
        self._last_id = stream_id
        if self._is_last:
            self.reader.decode(block)
            self._forget(stream_id)
            return
        try:
            head = self.reader.read(block)
        except MalformedError:
            raise StreamError(stream_id, PROTOCOL_ERROR) from None
        if len(self.streams) >= self.limits.streams:
            raise StreamError(stream_id, frames.REFUSED_STREAM)
        if head.meaning is None:
            self._handler.understand(head)
        stream = self._new_stream()
        stream.connection = self
        stream.head = head
        stream.body = None
        stream.id = stream_id
        self.streams[stream_id] = stream
        if self.free_widenings < _WIDENINGS * self.limits.streams:
            self.free_widenings += _WIDENINGS
        if head.answered_early:
            self._ready.append(stream)
        if flags & END_STREAM:
            self._end_request(stream)

    def _on_trailers(self, flags: int, stream_id: int, fields: list[Field]) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._charge()
            if stream_id in self.resets:
                return
            left_out = any(stream_id in gap for gap in self._gaps)
            raise Http2Error(PROTOCOL_ERROR if left_out else STREAM_CLOSED, "HEADERS on a closed stream")
        if stream.body is not None:
            raise StreamError(stream_id, STREAM_CLOSED)
        if not flags & END_STREAM:
            raise StreamError(stream_id, PROTOCOL_ERROR)
        try:
            self.reader.check_trailers(fields)
        except MalformedError:
            raise StreamError(stream_id, PROTOCOL_ERROR) from None
        self._end_request(stream)

    # Bodies

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._taken += size
        if self._taken > self.limits.window >> 1:
            self._refill()
        self._check_opened(stream_id)
        data = frames.unpadded(flags, payload)
        stream = self.streams.get(stream_id)
        if stream is None or stream.body is not None:
            self._charge()
            if stream_id in self.resets:
                return
            raise StreamError(stream_id, STREAM_CLOSED)
        body = self.bodies.setdefault(stream_id, bytearray())
        body += data
        self.buffered += len(data)
        if len(body) > self.limits.body_bytes or self.buffered > self.limits.buffered_bytes:
            self._drop_body(stream_id)
            self._handler.refuse_large(stream)
        elif flags & END_STREAM:
            self._end_request(stream)
        else:
            self._charge()
            taken = self._taken_of.get(stream_id, 0) + size
            if taken > DEFAULT_WINDOW >> 1:
                self._put(frames.window_update(stream_id, taken))
                taken = 0
            self._taken_of[stream_id] = taken

    def _end_request(self, stream: Stream) -> None:
        """The request is complete."""
        body = bytes(self.bodies.get(stream.id, b""))
        self._drop_body(stream.id)
        if stream.head.content_length not in (None, len(body)):
            raise StreamError(stream.id, PROTOCOL_ERROR)
        stream.body = body
        if not stream.head.answered_early:  # otherwise it is served already
            self._ready.append(stream)

    def _drop_body(self, stream_id: int) -> None:
        body = self.bodies.pop(stream_id, None)
        if body is not None:
            self.buffered -= len(body)
            self._taken_of.pop(stream_id, None)

    def _drop(self, number: int) -> None:
        self._drop_body(number)
        super()._drop(number)

    def _refill(self) -> None:
        """Restore the connection's window to its full size."""
        self._put(frames.window_update(0, self._taken))
        self._taken = 0

    # Frames that carry no request

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise Http2Error(PROTOCOL_ERROR, "PRIORITY is of a stream")
        self._charge()
        if len(payload) != 5:
            raise StreamError(stream_id, FRAME_SIZE_ERROR)
        check_dependency(stream_id, payload)

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(FRAME_SIZE_ERROR, "RST_STREAM has 4 bytes")
        self._check_opened(stream_id)
        self._charge()
        self._drop(stream_id)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(PROTOCOL_ERROR, "SETTINGS is of the connection")
        self._charge()
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise Http2Error(FRAME_SIZE_ERROR, "SETTINGS has 6 bytes for each")
        if flags & frames.ACK:
            return
        self.has_settings = True
        window = self._initial_window
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise Http2Error(FLOW_CONTROL_ERROR, "the initial window is too wide")
                window = value
            elif name == frames.ENABLE_PUSH and value > 1:
                raise Http2Error(PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
            elif name == frames.PEER_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 1 << 24:
                raise Http2Error(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range")
        self._put(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._set_initial_window(window)

    def _on_push(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise Http2Error(PROTOCOL_ERROR, "clients promise nothing")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(PROTOCOL_ERROR, "PING is of the connection")
        if len(payload) != 8:
            raise Http2Error(FRAME_SIZE_ERROR, "PING has 8 bytes")
        self._charge()
        if not flags & frames.ACK:
            self._put(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAIN_PING and self.is_draining:
            self._knows_of_drain = True
            if self._wants_end:
                self.finish()

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(PROTOCOL_ERROR, "GOAWAY is of the connection")
        if len(payload) < 8:
            raise Http2Error(FRAME_SIZE_ERROR, "GOAWAY has 8 bytes at least")
        self._charge()

    def _on_window(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(FRAME_SIZE_ERROR, "WINDOW_UPDATE has 4 bytes")
        if self.free_widenings:
            self.free_widenings -= 1
        else:
            self._charge()
        increment = frames.number(payload) & STREAM_MASK
        if not stream_id:
            if not increment:
                raise Http2Error(PROTOCOL_ERROR, "a window is widened by nothing")
            self._widen(increment)
            return
        self._check_opened(stream_id)
        if not increment:
            raise StreamError(stream_id, PROTOCOL_ERROR)
        if stream_id in self.streams:
            self._widen_stream(stream_id, increment)

    def _check_opened(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id > self._last_id:
            raise Http2Error(PROTOCOL_ERROR, "the stream was never opened")


def check_dependency(stream_id: int, priority: bytes) -> None:
    """Raise ``StreamError`` for a priority (5 bytes) by which a stream depends on itself."""
    if frames.number(priority[:4]) & STREAM_MASK == stream_id:
        raise StreamError(stream_id, PROTOCOL_ERROR)
