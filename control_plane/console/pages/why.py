"""Why?: why was this customer denied, and what can be done about it?"""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from control_plane.console.api import Api
from control_plane.console.pages.verdict import (
    denied,
    moment,
    nearest,
    recognised,
    verdict,
    verdict_on_address,
    verdict_on_key,
    windows_of,
)
from control_plane.console.render import HEADERS
from control_plane.console.visit import Visit

MAX_ASKED = 128
SHOWN = 10
"""Denials that stand open; the others are folded."""
_CLIENT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


async def ask(visit: Visit) -> Response:
    """Take the question out of the form: a whole key that somebody pasted is cut before it stands in an address."""
    asked = {"q": recognised(visit.form.get("q", "")[:512]).text[:MAX_ASKED], "at": visit.form.get("at", "")[:40]}
    given = {name: text for name, text in asked.items() if text}
    return RedirectResponse("/console/why?" + urlencode(given), 303, HEADERS)


async def page(visit: Visit) -> Response:
    """The question, and all that is known of who it names."""
    asked, when, now = visit.asked("q")[:MAX_ASKED], visit.asked("at"), datetime.now(UTC)
    found: dict[str, Any] = {"q": asked, "at": when, "error": "", "sentence": None, "client": None, "clients": [],
                             "denials": [], "regions": {}, "audit": [], "blocks": [], "limits": None,
                             "usage": [], "verdict": None, "shown": SHOWN}  # fmt: skip
    try:
        at = moment(when, now) if when else None
    except ValueError:
        return visit.page("why.html", 422, **found | {"error": "must be a time like 10:42 or 2026-11-30T10:42Z"})
    if asked:
        found |= await _look(visit.api, asked, at, now)
    return visit.page("why.html", **found)


async def _look(api: Api, asked: str, at: datetime | None, now: datetime) -> dict[str, Any]:
    kind, text = recognised(asked)
    if kind == "key":
        return await _by_key(api, text, at, now)
    if kind == "ip":
        found = await _denials(api, f"the address {text}", at, now, ip=text)
        blocks = (await api.find("/v1/blocks", ip=text, limit=50) or {"items": []})["items"]
        return {**found, "blocks": blocks, "verdict": verdict_on_address(text, blocks, now)}
    if _CLIENT.fullmatch(text) and await api.find(f"/v1/clients/{text}") is not None:
        found = await _denials(api, f"the client {text}", at, now, client=text)
        return {**found, **await _client_state(api, text)}
    return await _by_request(api, text, at, now)


async def _by_key(api: Api, prefix: str, at: datetime | None, now: datetime) -> dict[str, Any]:
    keys = (await api.find("/v1/keys", prefix=prefix, limit=20) or {"items": []})["items"]
    clients = sorted({key["client"] for key in keys})
    found = await _denials(api, f"the key {prefix}", at, now, key=prefix)
    if len(clients) == 1:
        return {**found, **await _client_state(api, clients[0])}
    return {**found, "clients": clients, "verdict": None if clients else verdict_on_key(prefix)}


async def _by_request(api: Api, id: str, at: datetime | None, now: datetime) -> dict[str, Any]:
    found = await _denials(api, f"the request {id}", at, now, request_id=id)
    denials = found["denials"]
    if denials and denials[0]["client"]:
        return {**found, **await _client_state(api, denials[0]["client"])}
    audit = await api.find("/v1/audit", request_id=id, limit=20) or {"items": []}
    clients = await api.find("/v1/clients", prefix=id, limit=10) or {"items": []}
    return {**found, "audit": audit["items"], "clients": [client["client"] for client in clients["items"]]}


async def _denials(api: Api, who: str, at: datetime | None, now: datetime, **of: str) -> dict[str, Any]:
    """What regions remember, and the first of it in a sentence."""
    answer: dict[str, Any] = {"items": [], "regions": {}}
    for query in windows_of(at):
        answer = await api.find("/v1/denials", **query, **of) or answer
        if answer["items"]:
            break
    denials = nearest(answer["items"], at)
    unanswered = {region: why for region, why in answer["regions"].items() if why is not None}
    return {"sentence": denied(who, denials, at, now), "denials": denials, "regions": unanswered}


async def _client_state(api: Api, name: str) -> dict[str, Any]:
    """A client's limits at this moment, what stands in its way, and what was changed of it."""
    limits = await api.find(f"/v1/clients/{name}/limits")
    if limits is None:
        return {}  # deleted since
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    usage, audit = await asyncio.gather(
        # all lines: the one that denied most may be any of them
        api.read_all(f"/v1/clients/{name}/usage", group_by="limit,endpoint,region", from_=since),
        api.read("/v1/audit", resource="client", name=name, limit=10),
    )
    blocks = await asyncio.gather(*(api.find(f"/v1/blocks/{block}") for block in limits["blocks"]))
    return {
        "client": name,
        "limits": limits,
        "blocks": [block for block in blocks if block],
        "usage": sorted((item for item in usage if item["denied"]), key=lambda item: -item["denied"])[:10],
        "audit": audit["items"],
        "verdict": verdict(limits, usage),
    }
