"""The arguments and replies of the scripts that exchange counts: ``collect``, ``settle`` and ``merge``."""

import struct
from collections.abc import Iterable, Sequence
from typing import Literal

from contract.counts import Cell

PEERS_SUFFIX = b"!"
"""What the peers of a counter said is stored at its key with this at the end: the same hash tag, the same slot."""

Merged = Literal["known", "merged", "ahead"]

_OWN = struct.Struct("<qqqqq")
_PEER = struct.Struct("<qqq")
_MERGED: dict[int, Merged] = {ord("0"): "known", ord("1"): "merged", ord("2"): "ahead"}


def decode_collected(keys: Sequence[bytes], reply: bytes) -> list[tuple[Cell, ...]]:
    """What peers are to know of each key, in order: the previous window where it counted, and the current one.

    A key without cells is gone and has left the dirty set. A bucket has one cell; its window is its birth.
    """
    collected: list[tuple[Cell, ...]] = []
    for key, (window, taken, returned, before, returned_before) in zip(keys, _OWN.iter_unpack(reply), strict=True):
        if not window:
            collected.append(())
        elif before:
            collected.append((Cell(key, window - 1, before, returned_before), Cell(key, window, taken, returned)))
        else:
            collected.append((Cell(key, window, taken, returned),))
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
    """The KEYS of ``merge``: each counter and its peers' key."""
    return [key for counter in counters for key in (counter, counter + PEERS_SUFFIX)]


def decode_merged(reply: bytes) -> list[Merged]:
    """What became of each counter's cells. ``ahead``: the sender's clock is; it must send them again (no ACK)."""
    return [_MERGED[byte] for byte in reply]
