"""HTTP/2 frames as bytes (RFC 9113, sections 4, 6 and 7), and the bounds of a connection."""

import struct
from dataclasses import dataclass
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
FRAME_HEADER: Final = struct.Struct(">BHBBL")
"""Length (in two parts: 8 bits, 16 bits), type, flags, stream."""
MAX_FRAME_BYTES: Final = 16_384
"""The largest frame that is accepted and sent: the smallest maximum that the protocol allows."""
MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
STREAM_MASK: Final = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM: Final = 11

ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, PEER_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 2, 3, 4, 5, 6

_SETTING: Final = struct.Struct(">HL")
_PAIR: Final = struct.Struct(">LL")
_NUMBER: Final = struct.Struct(">L")


class Http2Error(Exception):
    """The peer violated the protocol or exceeded a bound: end the connection by GOAWAY with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamError(Exception):
    """The peer violated the protocol on one stream: end it by RST_STREAM with ``code``."""

    def __init__(self, stream_id: int, code: int) -> None:
        super().__init__(stream_id)
        self.stream_id = stream_id
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """A frame; ``payload`` has at most ``MAX_FRAME_BYTES``."""
    return FRAME_HEADER.pack(0, len(payload), kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame with ``values``."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The pairs of a SETTINGS frame; its length is a multiple of 6."""
    return list(_SETTING.iter_unpack(payload))


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream_id, _NUMBER.pack(increment))


def rst_stream(stream_id: int, code: int) -> bytes:
    """An RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, _NUMBER.pack(code))


def goaway(last_id: int, code: int, reason: str = "") -> bytes:
    """A GOAWAY frame; ``reason`` appears in the peer's log."""
    return frame(GOAWAY, 0, 0, _PAIR.pack(last_id, code) + reason.encode())


def number(payload: bytes) -> int:
    """The 32 bits of an RST_STREAM or a WINDOW_UPDATE frame."""
    value: int = _NUMBER.unpack(payload)[0]
    return value


def unpadded(flags: int, payload: bytes) -> bytes:
    """The content of a padded frame. Raises ``Http2Error``."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Http2Limits:
    """Bounds of one connection, in bytes and seconds. Its memory stays below ``buffered_bytes``, a header block, and
    two reads (256 KiB).
    """

    streams: int = 1_000
    """Requests in flight; beyond it REFUSED_STREAM, after which clients retry."""
    header_bytes: int = 16 * 1024
    """A decoded header list (with 32 bytes more a field), and an encoded header block."""
    body_bytes: int = 64 * 1024 + 5
    """A request's body: a gRPC message with its frame."""
    buffered_bytes: int = 1024 * 1024
    """Incomplete bodies, and answers that wait for the peer's window."""
    window: int = 1024 * 1024
    """Flow-control window for bodies; larger than the protocol's 65,535."""
    patience: int = 2_000
    """Control frames in a row without progress of a request: PING, SETTINGS, RST_STREAM, WINDOW_UPDATE, empty frames
    and resets by this side. Beyond it ENHANCE_YOUR_CALM.
    """
    patience_per_s: int = 200
    """By how much patience recovers a second."""
    patience_per_answer: int = 4
    """By how much patience recovers with an answered request."""
    remembered_blocks: int = 64
    """Cached header blocks, of at most ``remembered_bytes`` each."""
    remembered_bytes: int = 1_024
    stall_s: float = 5.0
    """How often a connection is checked. What makes no progress between two checks is ended: the preface, a frame, a
    header block, a body, or an answer that waits for the peer's window.
    """
    idle_s: float = 300.0
    """A connection without requests ends after this time; gRPC clients connect again for the next request."""
