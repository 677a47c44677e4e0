"""What regions tell each other of shared limits: absolute counts, so that retries and reordering are harmless."""

import hashlib

import msgspec

PROTOCOL_VERSION = 1
MAX_CELLS = 1_000
MAX_AGE_S = 30.0
"""A message older (or newer) than this is refused: clocks are within a second of each other, the rest is transit."""


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
    """A batch of cells from one region and incarnation of its store; without cells it is a heartbeat."""

    version: int = PROTOCOL_VERSION
    region: str
    incarnation: str
    sent_at: float
    cells: tuple[Cell, ...] = ()


class CountsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver could not take: keys whose limit it does not know yet, or whose window is ahead of its clock.

    The sender tells them again; everything else is there.
    """

    again: tuple[bytes, ...] = ()


def signed_counts(to_region: str, body: bytes) -> bytes:
    """The bytes that a region signs: they bind the message to its receiver."""
    return b"tidegate counts\0" + to_region.encode() + b"\0" + hashlib.sha256(body).digest()
