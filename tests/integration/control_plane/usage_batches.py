"""Batches of usage as nodes make them, and a region that ships them."""

from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec

from testing.control_plane import RunningControlPlane
from tidegate.contract.usage import Denials, LimitName, Place, Shipment, UsageBatch, UsageCell, pack

FREE = Place("free", "get-user", (LimitName("free", "hourly"), LimitName("_", "per-ip")))


def now() -> datetime:
    """The time, when it is asked for: a run of all tests may see an hour end, and midnight."""
    return datetime.now(UTC)


def this_hour() -> int:
    """Hours since the epoch."""
    return int(now().timestamp()) // 3_600


def cell(
    client: str = "acme", allowed: int = 1, denied: int = 0, *, key_id: str = "key_1", place: int = 0, **more: Any
):
    """Requests of cost 1: so many allowed, so many denied by the place's first limit."""
    denials = (Denials((0,), (), denied, denied),) if denied else ()
    return UsageCell(place, client, key_id, allowed, allowed, more.get("denials", denials))


def batch(sequence: int = 1, *cells: UsageCell, **changes: Any) -> UsageBatch:
    """A batch of this hour from one node."""
    values = {
        "node": "us-east-1",
        "incarnation": "0a",
        "sequence": sequence,
        "hour": this_hour(),
        "until_ms": int(now().timestamp() * 1000),
        "places": (FREE,),
        "cells": cells or (cell(),),
    }
    return UsageBatch(**values | changes)


async def ship(
    served: RunningControlPlane, *batches: UsageBatch | bytes, region: str = "us-east", claimed: str | None = None,
    complete_until_ms: int | None = None,
) -> httpx.Response:  # fmt: skip
    """Send them with the region's credential; ``claimed`` is the region that the shipment says."""
    packed = tuple(one if isinstance(one, bytes) else pack(one) for one in batches)
    body = Shipment(region=claimed or region, node="us-east-1", batches=packed, complete_until_ms=complete_until_ms)
    headers = {"Authorization": f"Bearer {served.credentials[region]}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False, timeout=60) as client:
        return await client.post("/internal/v1/usage", content=msgspec.msgpack.encode(body))


async def totals(served: RunningControlPlane, **query: str) -> dict[str, int]:
    """Everything together, as the API says."""
    answer = (await served.admin.get("/v1/usage", params=query)).raise_for_status().json()
    names = ("allowed", "denied", "shadow_denied", "cost", "denied_cost")
    return {name: sum(item[name] for item in answer["items"]) for name in names}
