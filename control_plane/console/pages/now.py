"""Now: is it healthy, and what changed?"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from control_plane.console import repository
from control_plane.console.api import Api
from control_plane.console.feed import Feed
from control_plane.console.figures import duration, in_force, instant
from control_plane.console.render import HEADERS
from control_plane.console.visit import Visit
from control_plane.database import Database

LAG_S = 120.0
"""Usage that is older than this is worth a word."""
RATES_SHOWN = timedelta(minutes=15)
STEP_S = 30
"""Nodes report every 10 s, and replicas store that every few seconds: a step holds whole reports."""
Items = Sequence[Mapping[str, Any]]


class Rate(NamedTuple):
    """Requests a second."""

    decided: float
    denied: float
    without_store: float

    @property
    def allowed(self) -> float:
        """Those that were not denied."""
        return max(0.0, self.decided - self.denied)


class Rates(NamedTuple):
    """``points``: all regions together, by the begin of a step; ``regions``: each one's newest whole step."""

    points: Sequence[tuple[datetime, Rate]]
    regions: Mapping[str, Rate]


async def page(visit: Visit) -> Response:
    """Everything at a glance; whose role holds for some clients only begins with those."""
    if not visit.may("viewer"):
        return RedirectResponse("/console/clients", 303, HEADERS)
    status, figures, jobs = await asyncio.gather(
        read_status(visit.api, visit.feed), read_rates(visit.api, visit.feed), visit.api.read("/v1/jobs")
    )
    return visit.page(
        "now.html", **status, **figures, jobs=jobs["items"], leader=jobs["leader"], of="now-status,now-rates"
    )


async def read_status(api: Api, feed: Feed) -> dict[str, Any]:
    """Nodes, roll-outs, revisions: shown at once."""
    nodes, regions, rollouts, audit, blocks, overrides = await asyncio.gather(
        api.read_all("/v1/nodes"),
        api.read_all("/v1/regions"),
        api.read("/v1/rollouts", limit=5),
        api.read("/v1/audit", limit=7),
        api.read_all("/v1/blocks"),
        api.read_all("/v1/enforcement"),
    )
    now = datetime.now(UTC)
    under_way = [one for one in rollouts["items"] if one["ended_at"] is None]
    found = {
        "nodes": nodes,
        "regions": _regions(regions, nodes),
        "rollouts": under_way,
        "changes": audit["items"],
        "revision": feed.head.revision,
        "blocks": in_force(blocks, now),
        "overrides": in_force(overrides, now),
    }
    found["troubles"] = _troubles(found)
    feed.overview = {"nodes": found["nodes"], "regions": found["regions"], "read_at": datetime.now(UTC)}
    return found


def _regions(regions: Items, nodes: Items) -> list[dict[str, Any]]:
    shown = []
    for region in regions:
        known, connected = Counter[str](), Counter[str]()
        own = [node for node in nodes if node["region"] == region["region"]]
        for node in own:
            known[node["role"]] += 1
            connected[node["role"]] += node["connected"]
        shown.append({**region, "known": known, "connected": connected})
    return shown


def _troubles(found: Mapping[str, Any]) -> list[str]:
    """What is not as it should be, the worst first."""
    counts = [(one["region"], role, one["connected"][role], one["known"][role])
              for role in ("node", "agent") for one in found["regions"]]  # fmt: skip
    words = [
        f"No {role} of {region} is connected." for region, role, connected, known in counts if known > connected == 0
    ]
    refused = [node for node in found["nodes"] if node["refused_revision"] is not None]
    words += [
        f"{node['region']}/{node['node']} refused revision {node['refused_revision']}: {node['refused_reason']}"
        for node in refused[:3]
    ]
    words += [
        f"{connected} of {known} {role}s of {region} are connected."
        for region, role, connected, known in counts
        if 0 < connected < known
    ]
    for override in found["overrides"]:
        if override["target"] == "*":
            words.append(f"All limits are set to {override['mode']} by hand.")
    return words


async def read_rates(api: Api, _: Feed) -> dict[str, Any]:
    """Requests a second, and who makes them."""
    database: Database = api.state["database"]
    now = datetime.now(UTC)
    busiest, usage = await asyncio.gather(
        api.read("/v1/usage/busiest", count=10),
        api.read("/v1/usage", group_by="region", from_=(now - timedelta(hours=1)).isoformat()),
    )
    async with database.read() as session:
        lately = await _rates(session, now)
    lags = {
        region: (now - at).total_seconds() if (at := instant(until)) else None
        for region, until in usage["complete_until"].items()
    }
    late = [f"{region} {duration(lag)}" for region, lag in lags.items() if lag is not None and lag > LAG_S]
    names = sorted({*lags, *lately.regions})
    return {
        "points": lately.points,
        "region_rates": lately.regions,
        "by_region": {item["region"]: item for item in usage["items"]},
        "region_names": names,
        "lags": lags,
        "late": late,
        "busiest": busiest["items"],
    }


async def _rates(session: AsyncSession, now: datetime) -> Rates:
    """The rates of the last quarter of an hour, without the step that is not over yet."""
    found = await repository.reported_decisions(session, now - RATES_SHOWN, STEP_S)
    last = int(now.timestamp()) // STEP_S - 1
    first = last - int(RATES_SHOWN.total_seconds()) // STEP_S + 1
    names = {region for _, region in found}
    points = []
    for step in range(first, last + 1):
        reported = [found[step, region] for region in names if (step, region) in found]
        points.append((datetime.fromtimestamp(step * STEP_S, UTC), _rate(reported)))
    regions = {region: _rate([found[last, region]] if (last, region) in found else []) for region in names}
    return Rates(points, regions)


def _rate(reported: Sequence[repository.Decisions]) -> Rate:
    total = [sum(figures) for figures in zip(*reported, strict=True)] or [0, 0, 0]
    return Rate(*(figure / STEP_S for figure in total))
