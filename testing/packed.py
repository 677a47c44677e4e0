"""What the scripts say and store, in the direction that no node needs: whole replies decoded, a marker encoded."""

import struct
from collections.abc import Sequence

from data_plane.store.packing import FIGURES, Outcome, decode_figures, outcomes_of
from data_plane.store.strict_packing import Marker


def decode_reply(reply: bytes, counts: Sequence[int]) -> tuple[int, list[list[Outcome]]]:
    """The store's clock in microseconds, and for each check its outcomes; ``counts`` are the limits of each check."""
    figures = decode_figures(reply)
    checks = []
    at = 1
    for count in counts:
        checks.append(outcomes_of(figures, at, count))
        at += FIGURES * count
    return figures[0], checks


def encode_marker(marker: Marker) -> bytes:
    """The epoch marker's value: what ``decode_marker`` reads."""
    return struct.pack("<dddd", marker.incarnation, marker.revision, marker.birth_us, 0) + marker.run_id.encode()
