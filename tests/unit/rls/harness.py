"""A peer of a connection without sockets: sends frames, and reads what comes back."""

import functools
from typing import NamedTuple

from hpack import Encoder

from data_plane.rls import frames
from data_plane.rls.frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, Http2Limits, frame
from data_plane.rls.grpc import GrpcCall, GrpcHandler
from data_plane.rls.http2 import Http2Connection

PATH = "/test.Service/Echo"
FIELDS = [
    (":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "node"),
    ("content-type", "application/grpc"), ("te", "trailers"),
]  # fmt: skip
MAX_MESSAGE_BYTES = 64 * 1024


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def parse(data: bytes) -> list[Frame]:
    """All frames in it, each whole."""
    found = []
    while data:
        high, low, kind, flags, stream = frames.FRAME_HEADER.unpack_from(data)
        size = high << 16 | low
        assert len(data) >= 9 + size, "a frame is cut off"
        found.append(Frame(kind, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


@functools.cache
def block(*changes: tuple[str, str], leave_out: str = "") -> bytes:
    """A header block that changes no table: the usual fields, with some changed, added or left out."""
    changed = dict(changes)
    fields = [(name, changed.pop(name, value)) for name, value in FIELDS if name != leave_out]
    return literal(*fields, *changed.items())


def literal(*fields: tuple[str, str]) -> bytes:
    """Fields written out."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def indexed(encoder: Encoder, *changes: tuple[str, str]) -> bytes:
    """As ``block``, by an encoder that puts everything into the table."""
    changed = dict(changes)
    return encoder.encode([(name, changed.pop(name, value)) for name, value in FIELDS] + list(changed.items()))


def _string(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 127
    return bytes((len(data),)) + data


def message(data: bytes) -> bytes:
    """A gRPC message in its frame."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def headers(stream: int, head: bytes | None = None, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block() if head is None else head)


def data(stream: int, body: bytes, *, ends: bool = True) -> bytes:
    return frame(DATA, END_STREAM if ends else 0, stream, body)


def call(stream: int, said: bytes = b"hello", head: bytes | None = None) -> bytes:
    """A whole call."""
    return headers(stream, head) + data(stream, message(said))


class Peer:
    """A client that has made its connection. Calls wait in ``waiting`` unless ``answers`` is set."""

    def __init__(
        self, limits: Http2Limits | None = None, *, answers: bool = True, settings: dict | None = None
    ) -> None:
        self.answers = answers
        self.waiting: list[tuple[GrpcCall, bytes]] = []
        self.served = 0
        self.woken = 0
        handler = GrpcHandler({PATH.encode(): self._serve}, GrpcCall, MAX_MESSAGE_BYTES)
        self.connection = Http2Connection(handler, limits or Http2Limits(), self._wake)
        self.send(PREFACE + frames.settings(settings or {}))

    def _wake(self) -> None:
        self.woken += 1

    def _serve(self, asked: GrpcCall, said: bytes) -> None:
        self.served += 1
        if self.answers:
            asked.reply(said)
        else:
            self.waiting.append((asked, said))

    def answer_all(self) -> list[Frame]:
        """Answer what waits."""
        for asked, said in self.waiting:
            asked.reply(said)
        self.waiting.clear()
        return self.take()

    def take(self) -> list[Frame]:
        return parse(self.connection.take())

    def send(self, *sent: bytes) -> list[Frame]:
        """What comes back for it, sent in one piece."""
        self.connection.receive(b"".join(sent))
        return self.take()


def kinds(got: list[Frame]) -> list[int]:
    return [one.kind for one in got]


def goaway_code(got: list[Frame]) -> int | None:
    """The code of the GOAWAY among frames."""
    codes = [frames.number(one.payload[4:8]) for one in got if one.kind == frames.GOAWAY]
    return codes[-1] if codes else None


def reset_codes(got: list[Frame]) -> dict[int, int]:
    """Which streams were reset, and why."""
    return {one.stream: frames.number(one.payload) for one in got if one.kind == frames.RST_STREAM}


def echoed(got: list[Frame]) -> dict[int, bytes]:
    """The messages that came back whole, by stream."""
    bodies: dict[int, bytes] = {}
    ended: set[int] = set()
    for one in got:
        if one.kind == DATA:
            bodies[one.stream] = bodies.get(one.stream, b"") + one.payload
        if one.kind == HEADERS and one.flags & END_STREAM:
            ended.add(one.stream)
    return {stream: body[5:] for stream, body in bodies.items() if stream in ended}
