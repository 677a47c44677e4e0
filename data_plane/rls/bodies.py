"""Bodies of requests: DATA frames. Windows grow with what arrives; the size of bodies is bounded instead."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from data_plane.rls import frames
from data_plane.rls.control import ControlledConnection
from data_plane.rls.frames import (
    DEFAULT_WINDOW,
    END_STREAM,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    Http2Limits,
    StreamError,
)
from data_plane.rls.headers import Head
from data_plane.rls.sending import Stream


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


class ReceivingConnection(ControlledConnection):
    """Assembles bodies of several frames; ``_ready`` are the complete requests."""

    def __init__(self, handler: Handler, limits: Http2Limits, wake: Callable[[], object]) -> None:
        super().__init__(limits, wake)
        self._handler = handler
        self._ready: list[Stream] = []
        self._taken = 0
        """Bytes of DATA since the connection's last WINDOW_UPDATE."""
        self.bodies: dict[int, bytearray] = {}
        self._taken_of: dict[int, int] = {}
        """Bytes of DATA by stream since its last WINDOW_UPDATE."""
        self._takers[frames.DATA] = self._on_data

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
