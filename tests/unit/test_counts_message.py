"""Counts as they travel: cells that are packed already read as any others, also by the version before."""

import msgspec

from data_plane.replicate.peer_session import encode_counts
from tidegate.contract.counts import MAX_CELLS, Cell, Counts

HEAD = Counts(region="us-east", incarnation="e", sent_at=5.5, complete=((3, 7),), of="us-east/before", to="w")
decode = msgspec.msgpack.Decoder(Counts).decode
CELLS = (Cell(b"{a}1", 0, 1), Cell(b"{b}" + b"x" * 300, 2**52, 2**46, 128), Cell(b"{c}1", 4_000_000_000, 127, 1))


def test_packed_cells_are_the_same_message() -> None:
    packed = [msgspec.msgpack.encode(cell) for cell in CELLS]
    message = encode_counts(HEAD, [packed[0], packed[1] + packed[2]], 3)
    assert decode(message) == msgspec.structs.replace(HEAD, cells=CELLS)
    whole = [msgspec.msgpack.encode(CELLS[0]) * MAX_CELLS]
    assert decode(encode_counts(HEAD, whole, MAX_CELLS)).cells == CELLS[:1] * MAX_CELLS


def test_a_message_without_packed_cells_has_its_own() -> None:
    own = msgspec.structs.replace(HEAD, cells=CELLS)
    assert decode(encode_counts(own)) == own
    assert decode(encode_counts(HEAD)) == HEAD
