"""Many writers who read, change and write with ``If-Match``, through two replicas: what they counted must add up."""

import asyncio
import itertools
import time
from typing import Any

import httpx

from tools.bench.push.fleet import SimulatedNode, until_all
from tools.bench.push.place import Place

COUNTERS = 100
AT_ONCE = 64
RETRIED = frozenset({412, 503})


async def counted(place: Place, nodes: list[SimulatedNode], most: int, for_s: float, wait_s: float) -> dict[str, Any]:
    """Raise the counters of clients ``most`` times, or as often as begins within ``for_s``; all start at 0."""
    with place.admin() as admin:
        for counter in range(COUNTERS):
            admin.put(f"/v1/clients/counter-{counter}", json=_body(0)).raise_for_status()
        first = _newest(admin)["revision"]
    left = iter(range(most))
    writes = 0
    repeated = {412: 0, 503: 0}

    async def raised(admin: httpx.AsyncClient, counter: int) -> None:
        path = f"/v1/clients/counter-{counter}"
        while True:
            read = await admin.get(path)
            if read.status_code == 200:
                count = int(read.json()["attributes"]["count"]) + 1
                written = await admin.put(path, json=_body(count), headers={"If-Match": read.headers["etag"]})
                if written.status_code == 200:
                    return
            else:
                written = read
            if written.status_code not in RETRIED:
                written.raise_for_status()
            repeated[written.status_code] += 1

    async def writer(admin: httpx.AsyncClient) -> None:
        nonlocal writes
        for number in left:
            if time.monotonic() - began > for_s:
                return
            await raised(admin, number % COUNTERS)
            writes += 1

    headers = {"Authorization": f"Bearer {place.admin_token}"}
    clients = [
        httpx.AsyncClient(base_url=replica.url, headers=headers, trust_env=False, timeout=60.0)
        for replica in place.replicas
    ]
    began = time.monotonic()
    try:
        await asyncio.gather(*(writer(clients[number % len(clients)]) for number in range(AT_ONCE)))
    finally:
        for client in clients:
            await client.aclose()
    took_s = time.monotonic() - began
    with place.admin(1) as admin:
        newest = _newest(admin)
        gaps = _gaps(admin, first)
        total = 0
        for counter in range(COUNTERS):
            total += int(admin.get(f"/v1/clients/counter-{counter}").json()["attributes"]["count"])
    await until_all(nodes, newest["revision"], wait_s)
    return {
        "writes": writes,
        "writes a second, each with its read": writes / took_s,
        "repeated after 412": repeated[412],
        "repeated after 503": repeated[503],
        "lost updates": writes - total,
        "revisions made": newest["revision"] - first,
        "gaps in their numbers": gaps,
        "nodes that do not end on the last": sum(
            (node.revision, node.digest) != (newest["revision"], newest["digest"]) for node in nodes
        ),
    }


def _body(count: int) -> dict[str, Any]:
    return {"plan": "free", "attributes": {"count": str(count)}}


def _newest(admin: httpx.Client) -> dict[str, Any]:
    newest: dict[str, Any] = admin.get("/v1/revisions?limit=1").raise_for_status().json()["items"][0]
    return newest


def _gaps(admin: httpx.Client, since: int) -> int:
    numbers, cursor = [], None
    while True:
        params = {"limit": 1000} | ({"cursor": cursor} if cursor else {})
        page = admin.get("/v1/revisions", params=params).json()
        numbers += [item["revision"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None or numbers[-1] <= since:
            break
    return sum(a - b != 1 for a, b in itertools.pairwise(numbers))
