"""What regions send each other of shared limits: absolute counts, so that retries and reordering are harmless."""

import hashlib

import msgspec

PROTOCOL_VERSION = 1
MAX_CELLS = 1_000
SLICES = 8
"""A region's counters are divided into this many slices; the agent that holds a slice's lease sends it."""
MAX_AGE_S = 30.0
"""A message older or newer than this is refused: clocks are within a second of each other, the rest is transit."""


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

    ``complete`` are slices (0 to ``SLICES`` - 1), each with an instant (epoch microseconds, sender's clock). Once the
    receiver has this message, it has all that the sender counted in the slice up to then.
    ``of`` names the epoch that counted these cells, if it is not the sender's: ``region/incarnation`` of an ended epoch
    of the receiver's store, handed back because that store was lost, or of the sender's, which came back since.
    ``to`` is the epoch of the receiver's store for which ``complete`` holds: a newer one lacks what was sent before.
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

    The sender sends them again; the receiver has everything else. ``incarnation`` is the receiver's epoch: one that is
    new to the sender lacks everything, and is sent everything, its own earlier counts included.
    """

    again: tuple[bytes, ...] = ()
    incarnation: str = ""


def signed_counts(to_region: str, body: bytes) -> bytes:
    """The bytes that a region signs: they bind the message to its receiver."""
    return b"tidegate counts\0" + to_region.encode() + b"\0" + hashlib.sha256(body).digest()
