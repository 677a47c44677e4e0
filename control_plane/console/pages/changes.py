"""Changes: who changed what, and undo."""

import asyncio
from typing import Any

from starlette.responses import Response

from control_plane.console.api import Api
from control_plane.console.feed import Feed
from control_plane.console.visit import Visit

SHOWN = 30


async def page(visit: Visit) -> Response:
    """Revisions, roll-outs, and the audit log."""
    asked = {name: visit.asked(name) for name in ("author", "resource", "name", "cursor")}
    given = {name: value for name, value in asked.items() if value}
    rollouts, revisions, audit = await asyncio.gather(
        read_rollouts(visit.api, visit.feed),
        read_revisions(visit.api, visit.feed),
        visit.api.find("/v1/audit", limit=SHOWN, **given),
    )
    entries = audit or {"items": [], "next_cursor": None}
    return visit.page(
        "changes.html",
        **rollouts,
        **revisions,
        audit=entries["items"],
        next_cursor=entries["next_cursor"],
        asked=asked,
        of="rollouts,revisions",
    )


async def revision(visit: Visit) -> Response:
    """One revision: what it changed, and who has it."""
    number = visit.request.path_params["number"]
    found, diff, audit = await asyncio.gather(
        visit.api.read(f"/v1/revisions/{number}"),
        visit.api.read(f"/v1/revisions/{number}/diff", limit=100),
        visit.api.find("/v1/audit", revision=number, limit=20),
    )
    changes = [{**one, "lines": _lines(one["before"], one["after"])} for one in diff["changes"]]
    return visit.page(
        "revision.html",
        revision=found,
        changes=changes,
        more=diff["next_cursor"] is not None,
        audit=(audit or {"items": []})["items"],
    )


async def read_rollouts(api: Api, _: Feed) -> dict[str, Any]:
    """How far roll-outs are."""
    return {"rollouts": (await api.read("/v1/rollouts", limit=3))["items"]}


async def read_revisions(api: Api, _: Feed) -> dict[str, Any]:
    """The newest revisions."""
    return {"revisions": (await api.read("/v1/revisions", limit=SHOWN))["items"]}


def _lines(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """Members that differ, with what they were and are."""
    old, new = before or {}, after or {}
    names = [*old, *(name for name in new if name not in old)]
    return [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
