"""Access: who can do what? And for developers: show me a call."""

import asyncio
import json
import shlex
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from control_plane.console.api import segment
from control_plane.console.visit import Visit

DELIVERIES = 5
_METHODS = ("get", "post", "put", "delete")


async def page(visit: Visit) -> Response:
    """Tokens with their roles and last use (for admins), webhooks with their deliveries."""
    admin = visit.may("admin")
    webhooks, regions, reporters = await asyncio.gather(
        visit.api.read("/v1/usage-webhooks", limit=50),
        visit.api.read("/v1/regions", limit=1000),
        visit.api.read("/v1/reporters", limit=100),
    )
    tokens = (await visit.api.read("/v1/tokens", limit=1000))["items"] if admin else None
    return visit.page(
        "access.html",
        tokens=tokens,
        webhooks=await asyncio.gather(*(_with_deliveries(visit, one) for one in webhooks["items"])),
        regions=regions["items"],
        reporters=reporters["items"],
    )


async def _with_deliveries(visit: Visit, webhook: dict[str, Any]) -> dict[str, Any]:
    found = await visit.api.read(f"/v1/usage-webhooks/{segment(webhook['webhook'])}/deliveries", limit=DELIVERIES)
    return {**webhook, "deliveries": found["items"]}


async def developer(visit: Visit) -> Response:
    """Lines to copy, with this installation's addresses, and what nodes say of a client, which takes nothing.

    Nodes are asked over what they opened themselves: the control plane never connects to one.
    """
    endpoints = (await visit.api.read("/v1/endpoints", limit=20))["items"]
    path = endpoints[0]["path"].replace("{", "").replace("}", "") if endpoints else "/"
    asked = {"client": visit.asked("client"), "method": visit.asked("method") or "GET"}
    asked["path"] = visit.asked("path") or path
    limits = await visit.api.find(f"/v1/clients/{segment(asked['client'])}/limits") if asked["client"] else None
    return visit.page(
        "developer.html",
        control_plane=_base(visit),
        asked=asked,
        limits=limits,
        trial=_trial(asked),
    )


def _trial(asked: dict[str, str]) -> str:
    """The line that asks a node (``$NODE``: the control plane does not know the nodes' addresses) and takes nothing."""
    body = json.dumps({**asked, "cost": 0, "explain": True}, ensure_ascii=False)
    return f"curl -i $NODE/v1/check -d {shlex.quote(body)}"


async def reference(visit: Visit) -> Response:
    """Every route of the admin API, from the document that it serves, which takes seconds to make the first time."""
    rest = visit.request.state.console.rest
    if rest.openapi_schema is None and visit.asked("now") == "":
        return visit.page("reference.html", groups=None, base=_base(visit))
    document = await run_in_threadpool(rest.openapi)
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if path.startswith("/v1/") and method in operations:
                operation = operations[method]
                shown = _operation(path, method, operation)
                groups.setdefault(operation.get("tags", ["other"])[0], []).append(shown)
    return visit.page("reference.html", groups=groups, base=_base(visit))


def _operation(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    example = next((media.get("example") for media in content.values() if "example" in media), None)
    return {
        "method": method.upper(),
        "path": path,
        "id": operation["operationId"],
        "text": operation.get("description", "").replace("`", ""),
        "parameters": [one for one in operation.get("parameters", ()) if one["in"] in {"query", "header"}],
        "example": None if example is None else json.dumps(example),
    }


def _base(visit: Visit) -> str:
    return f"{visit.request.url.scheme}://{visit.request.headers.get('host', '')}"
