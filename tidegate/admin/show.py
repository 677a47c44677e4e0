"""How resources read in a terminal: lists as tables, one as its members, a write as a line on where it is in force."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidegate.terminal import Fitting, printable

_FRACTION = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+")


def show_list(
    console: Console, items: Sequence[Mapping[str, Any]], columns: Sequence[str], beside: Mapping[str, Any]
) -> None:
    """Print a table of the columns that have a value in some row, and the members that stand beside the rows."""
    if items:
        _show_table(console, items, columns)
    else:
        console.print("none")
    _show_members(console, beside)


def spread(items: Sequence[Mapping[str, Any]], member: str) -> list[Mapping[str, Any]]:
    """A row for each object that an item's ``member`` holds by name, with the item's own members before it."""
    name = member.removesuffix("s")
    return [{**item, **one, name: key} for item in items for key, one in (item.get(member) or {None: {}}).items()]


def show_one(console: Console, content: Mapping[str, Any]) -> None:
    """Print each member, and members that are lists of objects as tables of their own."""
    tables = {name: value for name, value in content.items() if _is_rows(value)}
    _show_members(console, {name: value for name, value in content.items() if name not in tables})
    for name, rows in tables.items():
        console.print(Text(f"{name}:", style="bold"))
        _show_table(console, rows, list(dict.fromkeys(column for row in rows for column in row)))


def show_difference(console: Console, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Print the members that a write changed, ``plan: free -> pro``, or that it changed none."""
    old, new = dict(_flat(before)), dict(_flat(after))
    names = [name for name in old | new if old.get(name) != new.get(name)]
    for name in names:
        console.print(Text(f"{name}: {cell(old.get(name))} -> {cell(new.get(name))}"))
    if not names:
        console.print("nothing changed")


def outcome_line(revision: str, rollout: str | None, enforced_ms: str | None, wait_s: int) -> str:
    """Where a write is in force, and after how long."""
    written = f"revision {revision}"
    if rollout is not None:
        return f"{written}: roll-out {rollout} began, see `tidegate rollouts show {rollout}`"
    if enforced_ms is not None:
        return f"{written}: enforced by every connected node after {enforced_ms} ms"
    if wait_s:
        return f"{written}: written, but not enforced by every node within {wait_s} s: see `tidegate nodes list`"
    return f"{written}: written"


def cell(value: Any) -> str:
    """A value in one line: ``-`` for none, instants to the second, members as ``name=value``, lists by commas."""
    match value:
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{round(value, 3):.15g}"
        case Mapping():
            text = ", ".join(f"{name}={one}" for name, inner in _flat(value) if (one := cell(inner)) != "-")
        case list() if _is_rows(value):
            text = ", ".join(str(row.get("name") or json.dumps(row)) for row in value)
        case list():
            text = ", ".join(map(cell, value))
        case _:
            text = "" if value is None else _FRACTION.sub(r"\1", str(value))
    return printable(text) or "-"


def _show_table(console: Console, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    shown = [name for name in columns if any(row.get(name) not in (None, [], {}) for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in shown:
        figures = all(type(row.get(name)) in (int, float, type(None)) for row in rows)
        table.add_column(name, justify="right" if figures else "left")
    for row in rows:
        table.add_row(*(Text(cell(row.get(name))) for name in shown))
    console.print(Fitting(table))


def _show_members(console: Console, content: Mapping[str, Any]) -> None:
    for name, value in _flat(content):
        console.print(Text.assemble((f"{name}: ", "bold"), cell(value)))


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Members with those of nested objects under dotted names."""
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", None if value == {} else value


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
