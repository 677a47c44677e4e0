"""The sending half of an HTTP/2 connection: answers, and the peer's two windows that hold them back."""

from collections.abc import Callable
from typing import Final, NamedTuple

from data_plane.rls.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_HEADER,
    HEADERS,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    NO_ERROR,
    Http2Error,
    Http2Limits,
    StreamError,
    frame,
    rst_stream,
)
from data_plane.rls.headers import Head

_START: Final = 5
_REMEMBERED_RESETS: Final = 256
_WIDENED_FOR_ONE: Final = 4
"""Log2 of the number of streams that a new initial window may affect at the patience of one frame."""


class Stream:
    """One request in flight. Handlers subclass it and add their own slots."""

    __slots__ = ("body", "connection", "head", "id")

    connection: "SendingConnection"
    head: Head
    body: bytes | None
    """``None`` until it is complete."""
    id: int


class HeaderFrame(NamedTuple):
    """A HEADERS frame that is the same on every stream; ``start`` precedes the stream's number."""

    start: bytes
    block: bytes

    @classmethod
    def of(cls, block: bytes, *, ends: bool) -> "HeaderFrame":
        """``ends``: nothing follows on the stream."""
        flags = END_HEADERS | END_STREAM if ends else END_HEADERS
        return cls(frame(HEADERS, flags, 0, block)[:_START], block)


class _Unsent(NamedTuple):
    stream: Stream
    data: bytes
    closing: HeaderFrame


class SendingConnection:
    """Collects frames to send; ``wake`` is called when the first one is added.

    ``ended`` says that nothing follows: send what is left and close.
    """

    def __init__(self, limits: Http2Limits, wake: Callable[[], object]) -> None:
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        """Requests that are not fully answered."""
        self.resets: dict[int, None] = {}
        """Streams reset lately by this side; frames for them are ignored."""
        self.patience = limits.patience
        self.free_widenings = 0
        """Number of WINDOW_UPDATE frames that may still come without costing patience; each request adds some."""
        self.buffered = 0
        """Bytes of incomplete bodies and of unsent answers."""
        self._is_last = False
        """No more requests are taken: ``ended`` follows once all are answered."""
        self.ended = False
        self._wake = wake
        self._out: list[bytes] = []
        self._send_window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self.credit: dict[int, int] = {}
        """By stream, the difference of its window from the initial one; absent for an unused window."""
        self.unsent: dict[int, _Unsent] = {}
        self.in_line: dict[int, None] = {}
        """Streams of ``unsent`` that wait for the connection's window; the others wait for their own."""

    def take(self) -> bytes:
        """Take all bytes to send now."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def respond(self, stream: Stream, opening: HeaderFrame, data: bytes, closing: HeaderFrame) -> None:
        """Answer a request, once; ignored if it is gone."""
        number = stream.id
        if self.streams.get(number) is not stream or number in self.unsent:
            return
        size = len(data)
        stream_bytes = number.to_bytes(4)
        if size > self._send_window or size > MAX_FRAME_BYTES or self.credit or size > self._initial_window:
            self._put(opening.start + stream_bytes + opening.block)
            self._hold(_Unsent(stream, data, closing))
            return
        self._send_window -= size
        self._put(
            b"".join((
                opening.start, stream_bytes, opening.block,
                FRAME_HEADER.pack(0, size, DATA, 0, number), data,
                closing.start, stream_bytes, closing.block,
            ))
        )  # fmt: skip
        self._answered(stream)

    def respond_empty(self, stream: Stream, closing: HeaderFrame) -> None:
        """Answer a request by header fields alone."""
        if self.streams.get(stream.id) is stream and stream.id not in self.unsent:
            self._put(closing.start + stream.id.to_bytes(4) + closing.block)
            self._answered(stream)

    def _put(self, data: bytes) -> None:
        if not self._out:
            self._wake()
        self._out.append(data)

    def _answered(self, stream: Stream) -> None:
        number = stream.id
        del self.streams[number]
        if self.credit:
            self.credit.pop(number, None)
        if stream.body is None:  # it need not send the rest
            self._forget(number)
            self._put(rst_stream(number, NO_ERROR))
        if self.patience < self.limits.patience:
            self.patience += self.limits.patience_per_answer
        if self._is_last and not self.streams:
            self.ended = True

    def _charge(self) -> None:
        """Count a frame without progress. Raises ``Http2Error`` once patience is exhausted."""
        self.patience -= 1
        if self.patience < 0:
            raise Http2Error(ENHANCE_YOUR_CALM, "too many frames that bring no request further")

    def _reset(self, number: int, code: int) -> None:
        """Reset a stream. Raises ``Http2Error`` after too many resets."""
        self._charge()
        self._give_up(number, code)

    def _give_up(self, number: int, code: int) -> None:
        self._forget(number)
        self._put(rst_stream(number, code))

    def _forget(self, number: int) -> None:
        """Drop a stream of which more may come: it is ignored."""
        self._drop(number)
        self.resets[number] = None
        if len(self.resets) > _REMEMBERED_RESETS:
            del self.resets[next(iter(self.resets))]

    def _drop(self, number: int) -> None:
        """The stream is over; drop its unsent bytes."""
        self.streams.pop(number, None)
        self.credit.pop(number, None)
        self.in_line.pop(number, None)
        unsent = self.unsent.pop(number, None)
        if unsent is not None:
            self.buffered -= len(unsent.data)
        if self._is_last and not self.streams and not self.ended:
            self.ended = True
            self._wake()

    # Windows

    def _hold(self, unsent: _Unsent) -> None:
        self.buffered += len(unsent.data)
        number = unsent.stream.id
        self.unsent[number] = unsent
        if self.in_line and self._send_window <= 0:
            self.in_line[number] = None
        else:
            self.send_more(number)
        if self.buffered > self.limits.buffered_bytes and number in self.unsent:
            self._give_up(number, ENHANCE_YOUR_CALM)  # no patience is charged

    def send_more(self, number: int) -> None:
        """Send as much of a waiting stream as the windows allow."""
        unsent = self.unsent.get(number)
        if unsent is None:
            return
        left = self._initial_window + self.credit.get(number, 0)
        data, sent = unsent.data, 0
        size = len(data)
        while sent < size:
            part = min(size - sent, self._send_window, left, MAX_FRAME_BYTES)
            if part <= 0:
                break
            self._put(frame(DATA, 0, number, data[sent : sent + part]))
            sent += part
            left -= part
            self._send_window -= part
        self.buffered -= sent
        if sent < size:
            self.credit[number] = left - self._initial_window
            self.unsent[number] = unsent._replace(data=data[sent:])
            if left > 0:
                self.in_line[number] = None
            else:
                self.in_line.pop(number, None)
            return
        del self.unsent[number]
        self.in_line.pop(number, None)
        self._put(unsent.closing.start + number.to_bytes(4) + unsent.closing.block)
        self._answered(unsent.stream)

    def _widen(self, increment: int) -> None:
        """The peer widened the connection's window."""
        self._send_window += increment
        if self._send_window > MAX_WINDOW:
            raise Http2Error(FLOW_CONTROL_ERROR, "the connection's window is too wide")
        while self.in_line and self._send_window > 0:
            self.send_more(next(iter(self.in_line)))

    def _widen_stream(self, number: int, increment: int) -> None:
        """The peer widened a stream's window."""
        credit = self.credit.get(number, 0) + increment
        if self._initial_window + credit > MAX_WINDOW:
            raise StreamError(number, FLOW_CONTROL_ERROR)
        self.credit[number] = credit
        self.send_more(number)

    def _set_initial_window(self, size: int) -> None:
        """The windows of all streams change with it, and may become negative."""
        if size == self._initial_window:
            return
        self._initial_window = size
        if self.credit and size + max(self.credit.values()) > MAX_WINDOW:
            raise Http2Error(FLOW_CONTROL_ERROR, "a stream's window is too wide")
        self.patience -= len(self.unsent) >> _WIDENED_FOR_ONE
        for number in list(self.unsent):
            if number not in self.in_line:
                self.send_more(number)
