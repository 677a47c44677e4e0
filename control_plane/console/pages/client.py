"""Client: what may it do, what is left, what did it use?"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from control_plane.console.api import segment
from control_plane.console.visit import Visit

SHOWN = 50
_FIGURES = ("allowed", "denied", "shadow_denied")
SPANS = {"24h": ("hour", timedelta(days=1)), "7d": ("hour", timedelta(days=7)), "30d": ("day", timedelta(days=30))}


async def search(visit: Visit) -> Response:
    """Clients by the beginning of their name, their plan or status."""
    prefix, plan, status, cursor = (visit.asked(name) for name in ("prefix", "plan", "status", "cursor"))
    query = {"prefix": prefix, "plan": plan, "status": status, "cursor": cursor}
    given = {name: value for name, value in query.items() if value}
    found, plans = await asyncio.gather(
        visit.api.find("/v1/clients", limit=SHOWN, **given), visit.api.permitted("/v1/plans", limit=1000)
    )
    listing = found or {"items": [], "next_cursor": None}
    return visit.page(
        "clients.html",
        clients=listing["items"],
        next_cursor=listing["next_cursor"],
        plans=sorted({one["plan"] for one in (plans or listing)["items"]}),
        asked=query,
    )


async def page(visit: Visit) -> Response:
    """One client."""
    name = visit.request.path_params["client"]
    span = visit.asked("span") if visit.asked("span") in SPANS else "24h"
    step, length = SPANS[span]
    since = (datetime.now(UTC) - length).isoformat()
    path, api = f"/v1/clients/{name}", visit.api
    client = await api.read(path)
    limits, keys, hours, by_limit, audit = await asyncio.gather(
        api.read(f"{path}/limits"),
        api.read(f"{path}/keys", limit=100),
        api.read(f"{path}/usage", group_by=step, limit=1000, from_=since),
        api.read(f"{path}/usage", group_by="limit", limit=100, from_=since),
        api.permitted("/v1/audit", resource="client", name=name, limit=8),
    )
    blocks = await asyncio.gather(*(api.permitted(f"/v1/blocks/{block}") for block in limits["blocks"]))
    regions = sorted({region for limit in limits["limits"] for region in limit["regions"]})
    return visit.page(
        "client.html",
        client=client,
        at=segment(name),
        limits=limits,
        regions=regions,
        blocks=[block for block in blocks if block],
        keys=keys["items"],
        usage=_filled(hours["items"], step, length),
        step=step,
        span=span,
        spans=list(SPANS),
        by_limit=by_limit["items"],
        complete_until=hours["complete_until"],
        audit=audit["items"] if audit else [],
        may=visit.may_about(name, client["plan"]),
    )


def _filled(items: Sequence[Mapping[str, Any]], step: str, length: timedelta) -> list[dict[str, Any]]:
    """The figures of every hour or day of the time, also of those in which nothing was counted; none if all are."""
    if not items:
        return []
    found = {_begin(datetime.fromisoformat(item[step]), step): item for item in items}
    size = timedelta(hours=1) if step == "hour" else timedelta(days=1)
    last = _begin(datetime.now(UTC), step)
    steps = [last - size * back for back in range(length // size, -1, -1)]
    nothing = dict.fromkeys(_FIGURES, 0)
    return [{"at": at, **{name: found.get(at, nothing)[name] for name in _FIGURES}} for at in steps]


def _begin(at: datetime, step: str) -> datetime:
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.replace(hour=at.hour if step == "hour" else 0, minute=0, second=0, microsecond=0)
