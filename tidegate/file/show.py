"""How differences read: grouped by section, what goes in red, what comes in green, and a line of counts."""

import json
from typing import Any

from rich.console import Console
from rich.text import Text

SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
MOST_HELD = 5
PAST = {"create": "created", "update": "changed", "delete": "deleted"}


def show_changes(console: Console, result: dict[str, Any], *, tense: str) -> None:
    """Print what changes, or changed; ``tense`` stands in front of the counts."""
    section = None
    for change in result["changes"]:
        if change["section"] != section:
            section = change["section"]
            console.print(Text(f"{section}:", style="bold"))
        _show_change(console, change)
    if result["omitted"]:
        console.print(f"  ... and {result['omitted']:,} more")
    console.print(Text(f"{tense}: {summary(result)}", style="bold"))


def show_rollout(console: Console, result: dict[str, Any]) -> None:
    """Print what a roll-out holds back, and where it is in force first."""
    rollout = result.get("rollout")
    if rollout is not None:
        console.print(Text(held_back(rollout), style="yellow"))


def held_back(rollout: dict[str, Any]) -> str:
    """``roll-out of revision 7: in force on node n1 of us-east, held back elsewhere (revision 6): plan free``."""
    where = f"node {rollout['node']} of {rollout['region']}" if rollout["node"] else f"the region {rollout['region']}"
    documents = [f"{item['kind'].replace('_', ' ')} {item['id']}" for item in rollout["held"]]
    named = ", ".join(documents[:MOST_HELD])
    if len(documents) > MOST_HELD:
        named += f" and {len(documents) - MOST_HELD} more"
    return (
        f"roll-out of revision {rollout['revision']}: in force on {where}, "
        f"held back elsewhere (revision {rollout['base_revision']}): {named}"
    )


def show_runtime(console: Console, result: dict[str, Any]) -> None:
    """Print the runtime state that no file decides."""
    if not result["runtime"]:
        return
    console.print(Text("runtime state, left as it is:", style="bold"))
    for item in result["runtime"]:
        until = f" until {item['expires_at']}" if item["expires_at"] else ""
        console.print(Text(f"  {item['kind']} {item['name']}: {item['value']}{until}", style="dim"))


def summary(result: dict[str, Any]) -> str:
    """``2 created, 1 changed (plans 1, clients 2)``, or that nothing differs."""
    counts: dict[str, dict[str, int]] = result["counts"]
    if not counts:
        return "nothing differs"
    totals = {
        action: sum(found.get(action, 0) for found in counts.values()) for action in ("create", "update", "delete")
    }
    words = ", ".join(f"{count:,} {PAST[action]}" for action, count in totals.items() if count)
    return f"{words} ({', '.join(f'{section} {sum(found.values()):,}' for section, found in counts.items())})"


def _show_change(console: Console, change: dict[str, Any]) -> None:
    sign, style = SIGNS[change["action"]]
    before, after = change["before"] or {}, change["after"] or {}
    if change["action"] != "update":
        console.print(Text(f"  {sign} {change['name']}: {_short(after or before)}", style=style))
        return
    console.print(Text(f"  {sign} {change['name']}", style=style))
    _show_members(console, before, after, indent=6)


def _show_members(console: Console, before: dict[str, Any], after: dict[str, Any], *, indent: int) -> None:
    space = " " * indent
    if before == after:
        console.print(Text(f"{space}order: {', '.join(before)} -> {', '.join(after)}", style="yellow"))
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if old == new and not (isinstance(old, dict) and isinstance(new, dict) and list(old) != list(new)):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            console.print(f"{space}{name}:", markup=False)
            _show_members(console, old, new, indent=indent + 2)
            continue
        if name in before:
            console.print(Text(f"{space}- {name}: {_short(old)}", style="red"))
        if name in after:
            console.print(Text(f"{space}+ {name}: {_short(new)}", style="green"))


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
