"""The arguments and replies of the scripts that exchange counts: ``collect``, ``settle`` and ``merge``."""

import struct
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from contract.counts import Cell

PEERS_SUFFIX = b"!"
"""What the peers of a counter said is stored at its key with this at the end: the same hash tag, the same slot."""

Merged = Literal["known", "merged", "ahead"]

_OWN = struct.Struct("<qqqqq")
_COLLECTED = struct.Struct("<qqqqqq")
_MET = struct.Struct("<qq")
_PEER = struct.Struct("<qqq")
_MERGED: dict[int, Merged] = {ord("0"): "known", ord("1"): "merged", ord("2"): "ahead"}


class Collected(NamedTuple):
    """What peers are to know of a key, and what of its limit is gone in the world, in units.

    ``cells`` are the previous window's where it counted, and the current one's; none: the state is gone and has left
    the slice. A bucket has one; its window is its birth.
    """

    cells: tuple[Cell, ...]
    known: int


def decode_collected(keys: Sequence[bytes], reply: bytes) -> list[Collected]:
    """What ``collect`` answered, in order."""
    collected: list[Collected] = []
    figures = _COLLECTED.iter_unpack(reply)
    for key, (window, taken, returned, before, returned_before, known) in zip(keys, figures, strict=True):
        if not window:
            cells: tuple[Cell, ...] = ()
        elif before:
            cells = (Cell(key, window - 1, before, returned_before), Cell(key, window, taken, returned))
        else:
            cells = (Cell(key, window, taken, returned),)
        collected.append(Collected(cells, known))
    return collected


def encode_settle(collected: Iterable[Sequence[Cell]]) -> bytes:
    """The argument of ``settle``: for each key the cells that every peer has, as ``decode_collected`` gave them."""
    parts = []
    for cells in collected:
        current = cells[-1]
        before, returned_before = (cells[0].taken, cells[0].returned) if len(cells) > 1 else (0, 0)
        parts.append(_OWN.pack(current.window, current.taken, current.returned, before, returned_before))
    return b"".join(parts)


def encode_merge(params: bytes, cells: Iterable[Cell]) -> bytes:
    """One counter's argument of ``merge``: its rule (``wire.encode_rule``) and one peer's cells of it."""
    return params + b"".join(_PEER.pack(cell.window, cell.taken, cell.returned) for cell in cells)


def merge_keys(counters: Sequence[bytes]) -> list[bytes]:
    """The KEYS of ``merge`` behind the dirty key: each counter and its peers' key."""
    return [key for counter in counters for key in (counter, counter + PEERS_SUFFIX)]


class Met(NamedTuple):
    """What became of each counter's cells, and what was seen when counts met: how many counters are over, by how much.

    ``ahead``: the sender's clock is; it must send them again (no ACK).
    """

    outcomes: list[Merged]
    over: int
    most_over: int


def decode_merged(reply: bytes) -> Met:
    """What ``merge`` answered."""
    over, most_over = _MET.unpack_from(reply, len(reply) - _MET.size)
    return Met([_MERGED[byte] for byte in reply[: -_MET.size]], over, most_over)


def decode_peers(raw: bytes) -> dict[str, list[tuple[int, int, int]]]:
    """What a counter's peers said (see ``lua/merge.lua``): window, taken and returned, by ``region/incarnation``."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    at = 1
    while raw[:1] == b"P" and at < len(raw):
        length = raw[at]
        window, taken, returned = (
            int.from_bytes(raw[at + start : at + end], "little") for start, end in ((1, 8), (8, 14), (14, 20))
        )
        name = raw[at + 20 : at + 20 + length].decode("utf-8", "replace")
        found.setdefault(name, []).append((window, taken, returned))
        at += 20 + length
    return found
