"""Regions: do they agree, and who owns which rights?"""

import asyncio
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from control_plane.console.api import Api
from control_plane.console.feed import Feed
from control_plane.console.figures import instant
from control_plane.console.visit import Visit

SHOWN = 100


async def page(visit: Visit) -> Response:
    """Regions, and how limits are split over them."""
    return visit.page("regions.html", **await read(visit.api, visit.feed), of="regions")


async def read(api: Api, _: Feed) -> dict[str, Any]:
    """What is shown of regions, now and as it changes."""
    regions, nodes, quotas, usage, exchange = await asyncio.gather(
        api.read_all("/v1/regions"),
        api.read_all("/v1/nodes"),
        api.read("/v1/quotas", limit=SHOWN),
        api.read("/v1/usage", group_by="region"),
        api.read("/v1/exchange"),
    )
    now = datetime.now(UTC)
    shown = []
    for region in regions:
        name = region["region"]
        own = [node for node in nodes if node["region"] == name and node["connected"]]
        applied = [node["applied_revision"] for node in own]
        until = instant(usage["complete_until"].get(name))
        shown.append(
            {
                **region,
                "connected": sum(node["role"] == "node" for node in own),
                "oldest": min(applied, default=None),
                "newest": max(applied, default=None),
                "lag_s": None if until is None else max(0.0, (now - until).total_seconds()),
                "figures": next((item for item in usage["items"] if item["region"] == name), None),
            }
        )
    return {
        "regions": shown,
        "agree": len({revision for one in shown for revision in (one["oldest"], one["newest"]) if revision}) <= 1,
        "exchange": exchange["items"],
        "quotas": quotas["items"],
        "more_quotas": quotas["next_cursor"] is not None,
    }
