"""Plan: what if I change this? Near its limits, what another figure would deny, then shadow, canary, all."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from control_plane.console.actions.plans import TRIED
from control_plane.console.api import segment
from control_plane.console.visit import Visit

NEAR_SHOWN = 20
CALENDAR = ("minute", "hour", "day", "week", "month")


async def index(visit: Visit) -> Response:
    """Every plan."""
    plans, limits = await asyncio.gather(
        visit.api.read("/v1/plans", limit=1000), visit.api.read("/v1/limits", limit=1000)
    )
    return visit.page("plans.html", plans=plans["items"], outside=limits["items"])


async def page(visit: Visit) -> Response:
    """One plan."""
    return await _shown(visit, {}, None, {})


async def what_if(visit: Visit) -> Response:
    """What a limit would have denied in the last days; nothing is changed."""
    name = visit.request.path_params["plan"]
    asked = {field: visit.form.get(field, "") for field in ("limit", "window", "days")}
    limit: dict[str, Any] = {"limit": _number(asked["limit"])}
    window = asked["window"]
    limit["window" if window in CALENDAR else "window_s"] = window if window in CALENDAR else _number(window)
    body = {"limit": limit, "days": _number(asked["days"])}
    answer = await visit.api.send("POST", f"/v1/plans/{name}/what-if", body)
    if answer.ok:
        return await _shown(visit, asked, answer.body, {})
    errors = {field.removeprefix("limit.").removesuffix("_s"): words for field, words in answer.errors.items()}
    return await _shown(visit, asked, None, errors or {"limit": answer.detail}, status=answer.status)


def _number(text: str) -> float | int | str:
    """A number where it is one; what is not, the API refuses by its field."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return text
    return int(value) if value.is_integer() else value


async def _shown(
    visit: Visit, asked: dict[str, str], outcome: Any, errors: dict[str, str], *, status: int = 200
) -> Response:
    name, api = visit.request.path_params["plan"], visit.api
    plan = await api.read(f"/v1/plans/{name}")
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    near, usage, rollouts, policy, clients = await asyncio.gather(
        api.read(f"/v1/plans/{name}/near-limit"),
        api.read("/v1/usage", group_by="limit", plan=name, from_=since),
        api.read("/v1/rollouts", limit=3),
        api.read("/v1/rollouts/policy"),
        api.read("/v1/clients", plan=name, limit=10),
    )
    return visit.page(
        "plan.html",
        status,
        plan=plan,
        at=segment(name),
        used={item["limit"]: item for item in usage["items"]},
        near=near["items"][:NEAR_SHOWN],
        near_total=len(near["items"]),
        skipped=near["skipped"],
        rollouts=rollouts["items"],
        policy=policy,
        clients=clients["items"],
        more_clients=clients["next_cursor"] is not None,
        asked={"limit": "", "window": "3600", "days": "7"} | asked,
        outcome=outcome,
        errors=errors,
        tried=TRIED,
        of="rollouts",
    )
