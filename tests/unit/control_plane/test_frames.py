"""Snapshots and deltas are cut into lines of bounded size."""

import msgspec

from control_plane.push.stream import MAX_FRAME_BYTES, document_changes, document_lines
from tidegate.contract.config import Documents


def test_lines_hold_every_document_once_in_order_and_are_bounded() -> None:
    body = '"' + "x" * 10_000 + '"'
    rows = [("plan", f"p{number}", body if number % 3 else None) for number in range(200)]
    lines = document_lines(document_changes(rows))
    assert len(lines) > 3
    assert all(len(line) < MAX_FRAME_BYTES + 20_000 for line in lines)
    decoded = [msgspec.json.decode(line, type=Documents) for line in lines]
    changes = [change for part in decoded for change in part.changes]
    assert [
        (change.kind, change.id, None if change.body is None else bytes(change.body).decode()) for change in changes
    ] == rows
    assert document_lines([]) == []
