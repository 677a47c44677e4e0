"""HTTP/2 frames that carry no request: settings, windows, pings, resets, and GOAWAY."""

from collections.abc import Callable

from data_plane.rls import frames
from data_plane.rls.frames import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    MAX_FRAME_BYTES,
    PROTOCOL_ERROR,
    STREAM_MASK,
    Http2Error,
    Http2Limits,
    StreamError,
)
from data_plane.rls.sending import SendingConnection

_DRAIN_PING = b"draining"
"""Its ACK shows that the peer has read the GOAWAY before it, and that its earlier requests have arrived."""


class ControlledConnection(SendingConnection):
    """Handles control frames of the peer. Each costs patience, but for those that widen a request's windows."""

    def __init__(self, limits: Http2Limits, wake: Callable[[], object]) -> None:
        super().__init__(limits, wake)
        self.is_draining = False
        self._knows_of_drain = self._wants_end = False
        self.has_settings = False
        self._last_id = -1
        """The newest stream that the peer has opened; the first is 1."""
        self._takers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.PRIORITY: self._on_priority, frames.RST_STREAM: self._on_reset, frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push, frames.PING: self._on_ping, frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window,
        }  # fmt: skip

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
        if self._is_last and not self.streams:
            self.ended = True
            self._wake()

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
