"""HTTP/2 frames as bytes (RFC 9113, sections 4, 6 and 7): numbers of the protocol, and what writes a frame."""

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
FRAME_HEADER: Final = struct.Struct(">BHBBL")
"""Length (in two parts: 8 bits, 16 bits), type, flags, stream."""
MAX_FRAME_BYTES: Final = 16_384
"""What we accept, and what we send at most: the smallest that the protocol allows."""
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
    """The peer broke the protocol, or asks too much: GOAWAY with ``code``, and the connection ends."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamError(Exception):
    """The same for one stream: RST_STREAM with ``code``; the others go on."""

    def __init__(self, stream_id: int, code: int) -> None:
        super().__init__(stream_id)
        self.stream_id = stream_id
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """A whole frame; ``payload`` has at most ``MAX_FRAME_BYTES``."""
    return FRAME_HEADER.pack(0, len(payload), kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame that says ``values``."""
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
    """A GOAWAY frame; ``reason`` is for whoever reads the peer's log."""
    return frame(GOAWAY, 0, 0, _PAIR.pack(last_id, code) + reason.encode())


def number(payload: bytes) -> int:
    """The 32 bits of an RST_STREAM or a WINDOW_UPDATE frame."""
    value: int = _NUMBER.unpack(payload)[0]
    return value


def unpadded(flags: int, payload: bytes) -> bytes:
    """What a padded frame holds. Raises ``Http2Error``."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
