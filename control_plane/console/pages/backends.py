"""Backends: why is load shed?"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from control_plane.console.api import Api, segment
from control_plane.console.feed import Feed
from control_plane.console.visit import Visit

SHOWN = 50
KEPT_POINTS = 720
"""An hour, one reading each 5 s."""


async def page(visit: Visit) -> Response:
    """Every backend, its factor in each region, and why."""
    return visit.page("backends.html", **await read(visit.api, visit.feed), of="backends")


async def read(api: Api, feed: Feed) -> dict[str, Any]:
    """What is shown of backends, now and as it changes."""
    listed = await api.read("/v1/backends", limit=SHOWN)
    backends = await asyncio.gather(*(api.read(f"/v1/backends/{segment(one['backend'])}") for one in listed["items"]))
    _remember(feed, backends)
    return {"backends": backends, "more_backends": listed["next_cursor"] is not None, "history": _history(feed)}


def _remember(feed: Feed, backends: Sequence[Mapping[str, Any]]) -> None:
    """Keep what was read: regions report what a factor is, and nothing stores what it was."""
    now = datetime.now(UTC)
    if feed.factors and (now - feed.factors[-1]["at"]).total_seconds() < 2:
        return
    values = {
        f"{one['backend']} in {factor['region']}": factor["factor"] for one in backends for factor in one["factors"]
    }
    feed.factors.append({"at": now, "values_of": values})
    del feed.factors[:-KEPT_POINTS]


def _history(feed: Feed) -> dict[str, Any]:
    names = sorted({name for point in feed.factors for name in point["values_of"]})
    return {"names": names[:8], "points": feed.factors}
