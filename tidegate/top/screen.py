"""What `top` looks like: tables on a terminal and in a pipe, one JSON object for machines."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tidegate.terminal import Fitting
from tidegate.top.readings import View

LATE_S = 10.0


def as_json(view: View, trouble: str | None = None) -> str:
    """The view as one line of JSON; ``trouble`` is why it is not newer."""
    return json.dumps({**asdict(view), "trouble": trouble}, default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def render(view: View, trouble: str | None = None) -> RenderableType:
    """The view as tables; ``trouble`` is why it is not newer."""
    parts: list[RenderableType] = [
        _head(view, trouble),
        *(Fitting(table) for table in (_regions(view), _nodes(view), _busiest(view))),
    ]
    return Group(*parts)


def _head(view: View, trouble: str | None) -> RenderableType:
    text = Text(f"tidegate top, {view.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    if view.blocks:
        text.append(f"   {view.blocks} blocks", style="yellow")
    for override in view.overrides:
        text.append(f"   {override}", style="yellow")
    for rollout in view.rollouts:
        text.append(f"\n{rollout}", style="yellow")
    if trouble:
        text.append(f"\n{trouble}", style="red")
    return text


def _regions(view: View) -> Table:
    table = Table("region", "nodes", "revisions behind", "allowed/s", "denied/s", "denied", "lag", title_justify="left")
    for one in view.regions:
        asked = (one.allowed_per_s or 0) + (one.denied_per_s or 0)
        share = f"{(one.denied_per_s or 0) / asked:.1%}" if asked else ""
        late = one.lag_s is None or one.lag_s > LATE_S
        table.add_row(
            Text(one.region),
            Text(f"{one.connected}/{one.nodes}", style="" if one.connected == one.nodes else "red"),
            Text(str(one.behind), style="yellow" if one.behind else ""),
            _rate(one.allowed_per_s),
            _rate(one.denied_per_s),
            share,
            Text("never received" if one.lag_s is None else f"{one.lag_s:.1f} s", style="red" if late else ""),
        )
    return table


def _nodes(view: View) -> Table:
    table = Table("node or agent", "region", "state", "revision", "behind", "last refusal")
    for node in view.nodes:
        state = Text("connected") if node["connected"] else Text("gone", style="red")
        table.add_row(
            Text(node["node"]),
            Text(node["region"]),
            state,
            _revision(node),
            str(node["behind"]),
            Text(node["refused_reason"] or ""),
        )
    return table


def _revision(node: Mapping[str, Any]) -> Text:
    """What a node applied, and the revision of which it lacks the changes."""
    lacks = node.get("held_back")
    if lacks is None:
        return Text(str(node["applied_revision"]))
    return Text(f"{node['applied_revision']} without {lacks}", style="yellow")


def _busiest(view: View) -> Table:
    since = view.since.astimezone(UTC)
    begin = f"{since:%H:%M}" if since.date() == view.at.astimezone(UTC).date() else f"{since:%Y-%m-%d %H:%M}"
    table = Table("busiest clients", "allowed/s", "denied/s", f"allowed since {begin}", f"denied since {begin}")
    for one in view.busiest:
        name = Text(one.client) if one.client else Text("(anonymous)", style="italic")
        table.add_row(name, _rate(one.allowed_per_s), _rate(one.denied_per_s), f"{one.allowed:,}", f"{one.denied:,}")
    return table


def _rate(per_s: float | None) -> str:
    return "" if per_s is None else f"{per_s:,.1f}"
