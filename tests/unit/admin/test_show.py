"""How resources read: every value has a line, and nothing is said to have changed that did not."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tidegate.admin.show import cell, outcome_line, show_difference, show_list, show_one, spread


def console() -> Console:
    return Console(file=StringIO(), width=100, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"), ({}, "-"), ([], "-"), ("", "-"), (0, "0"), (False, "no"), (True, "yes"), (3600.0, "3600"),
        (10**15, "1000000000000000"), (0.12345, "0.123"), ("2026-11-30T20:03:01.123456Z", "2026-11-30T20:03:01Z"),
        ({"methods": ["GET"], "endpoints": [], "attributes": {}}, "methods=GET"), ({"a": {"b": None}}, "-"),
        ([{"name": "hourly", "limit": 1}], "hourly"), ("two\nlines\x1b[2J", "two lines [2J"),
    ],
)  # fmt: skip
def test_every_value_is_one_line(value: Any, expected: str) -> None:
    assert cell(value) == expected


def test_columns_without_a_value_are_left_out_and_members_stand_below() -> None:
    out = console()
    show_list(out, [{"client": "acme", "note": None}, {"client": "globex"}], ("client", "note"), {"leader": {"a": 1}})
    assert [line.rstrip() for line in text(out).splitlines()] == ["client", "acme", "globex", "leader.a: 1"]


def test_lists_of_objects_are_tables_below_the_members() -> None:
    out = console()
    show_one(out, {"limits": [{"name": "hourly", "limit": 5}], "plan": "[bold]free"})
    lines = [line.rstrip() for line in text(out).splitlines()]
    assert lines == ["plan: [bold]free", "limits:", "name    limit", "hourly      5"]


def test_a_difference_names_what_changed_and_nothing_else() -> None:
    out = console()
    show_difference(
        out, {"plan": "free", "attributes": {"a": "1"}, "n": 0.0001}, {"plan": "pro", "attributes": {}, "n": 0.0001}
    )
    assert sorted(text(out).splitlines()) == ["attributes.a: 1 -> -", "plan: free -> pro"]
    out = console()
    show_difference(out, {"plan": "free"}, {"plan": "free"})
    assert text(out) == "nothing changed\n"


def test_regions_of_a_limit_are_rows() -> None:
    items = [{"name": "hourly", "limit": 10, "regions": {"us": {"limit": 5, "used": 1}, "eu": {"limit": 5, "used": 2}}}]
    rows = spread([*items, {"name": "x", "limit": 1, "regions": {}}], "regions")
    found = [(row["name"], row["region"], row["limit"], row.get("used")) for row in rows]
    assert found == [("hourly", "us", 5, 1), ("hourly", "eu", 5, 2), ("x", None, 1, None)]


def test_a_write_says_where_it_is_in_force() -> None:
    assert outcome_line("7", None, "12.5", 10) == "revision 7: enforced by every connected node after 12.5 ms"
    assert "roll-out 7 began" in outcome_line("7", "7", None, 10)
    assert "not enforced by every node within 10 s" in outcome_line("7", None, None, 10)
    assert outcome_line("7", None, None, 0) == "revision 7: written"
