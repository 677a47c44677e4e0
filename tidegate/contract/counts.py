"""What regions send each other of shared limits: absolute counts, so that retries and reordering are harmless."""

import hashlib
import struct
from collections.abc import Sequence

import msgspec

PROTOCOL_VERSION = 1
MAX_CELLS = 1_000
SLICES = 8
"""A region's counters are sent in this many parts, each by the agent that holds it."""
MAX_AGE_S = 30.0
"""A message older (or newer) than this is refused: clocks are within a second of each other, the rest is transit."""


_ARRAY = struct.Struct(">BI")
"""How MessagePack begins an array of so many."""


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What one region counted on one stored key under one window id; both figures only grow while the id lives.

    ``key`` is the counter's key. For buckets ``window`` is the birth of the figures (microseconds) and ``taken`` all
    that was taken since.
    """

    key: bytes
    window: int
    taken: int
    returned: int = 0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of cells from one region and incarnation of its store; without cells it is a heartbeat.

    ``complete`` are slices (0 to ``SLICES`` - 1), each with an instant (epoch microseconds, sender's clock). With this
    message the receiver has all that the sender counted in the slice until then.
    ``of`` says whose cells these are, where they are not the sender's: ``region/incarnation`` of an earlier epoch of
    the receiver's own store, handed back because that store was lost, or of the sender's, whose store came back since.
    ``to`` is the epoch of the receiver's store that ``complete`` is true of: another one has forgotten what it had.
    """

    version: int = PROTOCOL_VERSION
    region: str
    incarnation: str
    sent_at: float
    cells: tuple[Cell, ...] = ()
    complete: tuple[tuple[int, int], ...] = ()
    of: str = ""
    to: str = ""


class CountsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver could not take: keys whose limit it does not know yet, or whose window is ahead of its clock.

    The sender sends them again; everything else is there. ``incarnation`` is the receiver's own: one that is new to the
    sender has forgotten everything, and is to be sent everything, its own earlier counts included.
    """

    again: tuple[bytes, ...] = ()
    incarnation: str = ""


class _PackedCounts(msgspec.Struct, frozen=True, kw_only=True):
    """``Counts`` whose cells are MessagePack already."""

    version: int
    region: str
    incarnation: str
    sent_at: float
    cells: msgspec.Raw
    complete: tuple[tuple[int, int], ...]
    of: str
    to: str


_counts = msgspec.msgpack.Decoder(Counts)


def encode_counts(counts: Counts, cells: Sequence[bytes] = (), number: int = 0) -> bytes:
    """A batch as it travels. In place of its own cells it may have ``number`` of them that are MessagePack already."""
    if not number:
        return msgspec.msgpack.encode(counts)
    return msgspec.msgpack.encode(
        _PackedCounts(
            version=counts.version,
            region=counts.region,
            incarnation=counts.incarnation,
            sent_at=counts.sent_at,
            cells=msgspec.Raw(b"".join((_ARRAY.pack(0xDD, number), *cells))),
            complete=counts.complete,
            of=counts.of,
            to=counts.to,
        )
    )


def decode_counts(message: bytes) -> Counts:
    """The reverse of ``encode_counts``. Raises ``msgspec.DecodeError``, or ``UnicodeDecodeError``."""
    return _counts.decode(message)


def signed_counts(to_region: str, body: bytes) -> bytes:
    """The bytes that a region signs: they bind the message to its receiver."""
    return b"tidegate counts\0" + to_region.encode() + b"\0" + hashlib.sha256(body).digest()
