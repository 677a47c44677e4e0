"""Why?: why was this customer denied, and what can be done about it?"""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from contract.credentials import PREFIXES
from control_plane.console.api import Api, RefusedError
from control_plane.console.pages.verdict import verdict
from control_plane.console.render import HEADERS
from control_plane.console.visit import Visit

KEY_SHOWN = 12
"""So much of a key is looked for; the rest of a secret never leaves the form."""
MAX_ASKED = 128
_CLIENT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
_ADDRESS = re.compile(r"[0-9a-fA-F:.]{2,45}(/\d{1,3})?")


async def ask(visit: Visit) -> Response:
    """Take the question out of the form: a whole key that somebody pasted is cut before it stands in an address."""
    asked = visit.form.get("q", "")[:512]
    shown = asked[:KEY_SHOWN] if asked.startswith(tuple(PREFIXES.values())) else asked[:MAX_ASKED]
    return RedirectResponse("/console/why?" + urlencode({"q": shown}), 303, HEADERS)


async def page(visit: Visit) -> Response:
    """The question, and all that is known of who it names."""
    asked = visit.asked("q")[:MAX_ASKED]
    found: dict[str, Any] = {"q": asked, "kind": None, "client": None, "clients": [], "denials": None, "audit": [],
                             "blocks": [], "limits": None, "verdict": None}  # fmt: skip
    if asked:
        found |= await _look(visit.api, asked)
    return visit.page("why.html", **found)


async def _look(api: Api, asked: str) -> dict[str, Any]:
    if asked.startswith(tuple(PREFIXES.values())):
        return await _by_key(api, asked[:KEY_SHOWN])
    if _CLIENT.fullmatch(asked) and await api.find(f"/v1/clients/{asked}") is not None:
        return await _by_client(api, asked)
    if _ADDRESS.fullmatch(asked) and ("." in asked or ":" in asked):
        return await _by_address(api, asked)
    return await _by_request(api, asked)


async def _by_client(api: Api, name: str) -> dict[str, Any]:
    limits, usage, audit, denials = await asyncio.gather(
        api.read(f"/v1/clients/{name}/limits"),
        api.read(f"/v1/clients/{name}/usage", group_by="limit,endpoint,region", limit=200, **_last_day()),
        api.read("/v1/audit", resource="client", name=name, limit=10),
        _denials(api, client=name),
    )
    blocks = await asyncio.gather(*(api.find(f"/v1/blocks/{block}") for block in limits["blocks"]))
    return {
        "kind": "client",
        "client": name,
        "limits": limits,
        "blocks": [block for block in blocks if block],
        "usage": sorted(usage["items"], key=lambda item: -item["denied"])[:10],
        "audit": audit["items"],
        "denials": denials,
        "verdict": verdict(limits, usage["items"]),
    }


async def _by_key(api: Api, prefix: str) -> dict[str, Any]:
    keys = (await api.find("/v1/keys", prefix=prefix, limit=20) or {"items": []})["items"]
    clients = sorted({key["client"] for key in keys})
    if len(clients) == 1:
        return {**await _by_client(api, clients[0]), "kind": "key", "keys": keys}
    return {"kind": "key", "keys": keys, "clients": clients, "denials": await _denials(api, key=prefix)}


async def _by_address(api: Api, address: str) -> dict[str, Any]:
    blocks = (await api.find("/v1/blocks", ip=address, limit=50) or {"items": []})["items"]
    return {"kind": "address", "blocks": blocks, "denials": await _denials(api, ip=address)}


async def _by_request(api: Api, id: str) -> dict[str, Any]:
    audit = await api.find("/v1/audit", request_id=id, limit=20) or {"items": []}
    clients = await api.find("/v1/clients", prefix=id, limit=10) or {"items": []}
    names = [client["client"] for client in clients["items"]]
    return {"kind": "request", "audit": audit["items"], "clients": names, "denials": await _denials(api, request_id=id)}


async def _denials(api: Api, **of: str) -> list[Mapping[str, Any]] | None:
    """Single denials, of the regions' own log; ``None`` where this version has none."""
    answer = await api.ask("/v1/denials", **of)
    if answer.status == 404:
        return None
    if answer.status == 503:
        raise RefusedError(answer)
    return list(answer.body.get("items", ())) if answer.ok else []


def _last_day() -> dict[str, str]:
    return {"from_": (datetime.now(UTC) - timedelta(days=1)).isoformat()}
