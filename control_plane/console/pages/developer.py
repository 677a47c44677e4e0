"""Developer: show me a call."""

import json
from typing import Any

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from control_plane.console.visit import Visit

TRY_TIMEOUT_S = 3.0
MAX_ANSWER = 64 * 1024
_METHODS = ("get", "post", "put", "delete")


async def page(visit: Visit) -> Response:
    """Lines to copy, with this installation's addresses, and a form that asks a node and takes nothing."""
    return await _shown(visit, {}, None, "")


async def try_call(visit: Visit) -> Response:
    """Ask a node of a region whether a request would pass; ``cost: 0`` takes nothing."""
    names = ("region", "by", "who", "method", "path")
    asked = {name: visit.form.get(name, "") for name in names}
    regions = (await visit.api.read("/v1/regions", limit=1000))["items"]
    url = next((one["peer_url"] for one in regions if one["region"] == asked["region"]), None)
    if not url:
        return await _shown(visit, asked, None, "This region has no address.", status=422)
    if asked["by"] not in {"api_key", "client", "ip"} or not asked["who"]:
        return await _shown(visit, asked, None, "Say who calls.", status=422)
    body = {asked["by"]: asked["who"], "method": asked["method"], "path": asked["path"], "cost": 0, "explain": True}
    try:
        answer = await _ask(f"{url}/v1/check", body)
    except httpx.HTTPError as error:
        words = f"The node at {url} did not answer: {error or type(error).__name__}"
        return await _shown(visit, asked, None, words, status=502)
    return await _shown(visit, asked, answer, "")


async def _ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """A node's answer, as much of it as anybody reads."""
    async with (
        httpx.AsyncClient(timeout=TRY_TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
        client.stream("POST", url, json=body) as response,
    ):
        content = b""
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_ANSWER:
                break
    shown = {name: text for name, text in response.headers.items() if "ratelimit" in name or name == "retry-after"}
    return {"status": response.status_code, "headers": shown, "body": _pretty(content)}


def _pretty(content: bytes) -> str:
    text = content[:MAX_ANSWER].decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


async def _shown(visit: Visit, asked: dict[str, str], answer: Any, error: str, *, status: int = 200) -> Response:
    regions = (await visit.api.read("/v1/regions", limit=1000))["items"]
    endpoints = (await visit.api.read("/v1/endpoints", limit=20))["items"]
    first = endpoints[0] if endpoints else {"method": "GET", "path": "/"}
    defaults = {
        "region": "",
        "by": "client",
        "who": "",
        "method": "GET",
        "path": first["path"].replace("{", "").replace("}", ""),
    }
    return visit.page(
        "developer.html",
        status,
        regions=regions,
        reached=[one for one in regions if one["peer_url"]],
        control_plane=f"{visit.request.url.scheme}://{visit.request.headers.get('host', '')}",
        asked=defaults | {**asked, "who": "" if asked.get("by") == "api_key" else asked.get("who", "")},
        answer=answer,
        error=error,
    )


async def reference(visit: Visit) -> Response:
    """Every route of the admin API, from the document that it serves."""
    document = await run_in_threadpool(visit.request.state.console.rest.openapi)
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if path.startswith("/v1/") and method in operations:
                operation = operations[method]
                groups.setdefault(operation.get("tags", ["other"])[0], []).append(
                    _shown_operation(path, method, operation)
                )
    return visit.page(
        "reference.html", groups=groups, base=f"{visit.request.url.scheme}://{visit.request.headers.get('host', '')}"
    )


def _shown_operation(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
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
