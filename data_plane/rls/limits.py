"""What one HTTP/2 connection may cost: sizes in bytes, times in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Http2Limits:
    """Bounds of a connection: its memory stays below ``buffered_bytes``, a header block, and two reads (256 KiB)."""

    streams: int = 1_000
    """Requests of one connection in flight; beyond it REFUSED_STREAM, which clients ask again."""
    header_bytes: int = 16 * 1024
    """A header list, decoded (32 bytes more a field), and a header block, encoded."""
    body_bytes: int = 64 * 1024 + 5
    """A request's body: a gRPC message and what it is framed with."""
    buffered_bytes: int = 1024 * 1024
    """Bodies of one connection that are not whole yet, and answers that wait for the peer's window."""
    window: int = 1024 * 1024
    """Bytes of bodies that may be on their way to us; more than the 65,535 of the protocol."""
    patience: int = 2_000
    """Frames that bring no request further, in a row: PING, SETTINGS, RST_STREAM, WINDOW_UPDATE, empty ones and our own
    resets. Beyond it ENHANCE_YOUR_CALM."""
    patience_per_s: int = 200
    """How fast it grows again by itself."""
    patience_per_answer: int = 4
    """How much an answered request adds."""
    remembered_blocks: int = 64
    """Header blocks that are known by their bytes, of at most ``remembered_bytes`` each."""
    remembered_bytes: int = 1_024
    stall_s: float = 5.0
    """A connection is looked at this often. What has come no further between two looks ends: the preface, a frame, a
    header block, a body, an answer that the peer's window holds back."""
    idle_s: float = 300.0
    """A connection without requests is sent away after this; gRPC clients connect again when they have one."""
