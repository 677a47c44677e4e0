"""`python -m bench.push`: seconds from an admin's request to every node, takeover of the leader, many writes."""

import asyncio
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from bench.push.fleet import SimulatedNode, until_all
from bench.push.place import Place, running, seed_clients
from tidegate.stack.ports import LOOPBACK

WAIT_S = 120.0
REGION = "us-east"


def main(
    nodes: Annotated[int, typer.Option(min=1, max=5_000, help="Simulated nodes.")] = 500,
    clients: Annotated[int, typer.Option(min=1, max=1_000_000, help="Clients with a key each.")] = 100_000,
    changes: Annotated[int, typer.Option(min=1, max=1_000, help="Changes, one after the other.")] = 20,
    writes: Annotated[int, typer.Option(min=1, max=100_000, help="Parallel writes through two replicas.")] = 1_000,
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measure the push of changes on this machine, with real processes and the real stream."""
    console = Console(width=140)
    with tempfile.TemporaryDirectory(prefix="tidegate-push-") as root, running(Path(root), 2) as place:
        figures = asyncio.run(_measure(place, nodes, clients, changes, writes, console))
    table = Table("figure", "value", title=f"{nodes} nodes, {clients:,} clients with a key each")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else f"{value:,}")
    console.print(table)
    if out is not None:
        out.write_text(json.dumps(figures, indent=1))


async def _measure(
    place: Place, count: int, clients: int, changes: int, writes: int, console: Console
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with place.admin() as admin:
        limits = [{"name": "hourly", "limit": 1000, "window_s": 3600}]
        admin.put("/v1/plans/free", json={"limits": limits}).raise_for_status()
        admin.put(f"/v1/regions/{REGION}", json={}).raise_for_status()
        issued = admin.post(f"/v1/regions/{REGION}/credentials").raise_for_status().json()
        credential = issued["credential"]
        console.print("clients")
        figures["seed: one revision with all clients, s"] = await seed_clients(place, clients)
        head = admin.get("/v1/revisions?limit=1").json()["items"][0]
    console.print("one node loads")
    for name, value in (await asyncio.to_thread(_one_node_loads, place, credential)).items():
        figures[f"a node loads them: {name}"] = value
    seen: dict[int, list[float]] = {}
    nodes = [
        SimulatedNode((LOOPBACK, place.replicas[number % 2].port), credential, REGION, f"node-{number}",
                      lambda revision, at: seen.setdefault(revision, []).append(at))
        for number in range(count)
    ]  # fmt: skip
    for node in nodes:  # as after a restart, with the snapshot file of the newest revision
        node.revision, node.digest = head["revision"], head["digest"]
    console.print("nodes connect")
    began = time.monotonic()
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(node.connected.wait() for node in nodes))
        figures["all connected from nothing, s"] = time.monotonic() - began
        console.print("changes")
        figures |= await _changes(place, nodes, seen, changes)
        console.print("all come back at once")
        figures |= await _return(place, nodes)
        console.print("many writes")
        figures |= await _many_writes(place, nodes, writes)
        for name, value in figures.items():
            console.print(name, value, highlight=False)
        console.print("the leader is killed")
        figures |= await _takeover(place)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return figures


def _one_node_loads(place: Place, credential: str) -> dict[str, float]:
    public_key = place.signing_key.public_key().public_bytes_raw().hex()
    command = [sys.executable, "-m", "bench.push.node_load", place.replicas[0].url, REGION, public_key]
    done = subprocess.run(command, input=credential, capture_output=True, text=True, check=False, timeout=WAIT_S)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def _changes(
    place: Place, nodes: list[SimulatedNode], seen: dict[int, list[float]], changes: int
) -> dict[str, Any]:
    first, last = [], []
    waits = []
    headers = {"Authorization": f"Bearer {place.admin_token}"}
    url = place.replicas[0].url
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30.0) as admin:
        for number in range(changes):
            began = time.monotonic()
            body = {"plan": "free", "attributes": {"change": str(number)}}
            answer = await admin.put(f"/v1/clients/customer-{number:07d}", json=body, headers={"Prefer": "wait=30"})
            waits.append(time.monotonic() - began)
            revision = int(answer.raise_for_status().headers["x-tidegate-revision"])
            await until_all(nodes, revision, WAIT_S)
            times = sorted(at - began for at in seen[revision])
            first += times
            last.append(times[-1])
    first.sort()
    return {
        "change to a node, p50, s": first[len(first) // 2],
        "change to a node, p99, s": first[int(len(first) * 0.99)],
        "change to the last node, worst, s": max(last),
        "change ACKed by all and answered, median, s": sorted(waits)[len(waits) // 2],
    }


async def _return(place: Place, nodes: list[SimulatedNode]) -> dict[str, Any]:
    before = [node.snapshots for node in nodes]
    with place.admin() as admin:
        admin.put("/v1/clients/customer-0000001", json={"plan": "free", "attributes": {"gone": "yes"}})
    for node in nodes:
        node.drop()
    with place.admin() as admin:
        answer = admin.put("/v1/clients/customer-0000001", json={"plan": "free", "attributes": {"back": "yes"}})
    revision = int(answer.headers["x-tidegate-revision"])
    began = time.monotonic()
    await until_all(nodes, revision, WAIT_S)
    took_s = time.monotonic() - began
    snapshots = sum(node.snapshots for node in nodes) - sum(before)
    return {"all drop and come back, with the newest, s": took_s, "snapshots that this cost": snapshots}


async def _many_writes(place: Place, nodes: list[SimulatedNode], writes: int) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {place.admin_token}"}
    with place.admin() as admin:
        first = admin.get("/v1/revisions?limit=1").json()["items"][0]["revision"]
    refused = 0
    turn = asyncio.Semaphore(64)

    async def write(admin: httpx.AsyncClient, number: int) -> None:
        nonlocal refused
        body = {"plan": "free", "attributes": {"write": str(number)}}
        while True:
            async with turn:
                answer = await admin.put(f"/v1/clients/written-{number:06d}", json=body)
            if answer.status_code == 201:
                return
            if answer.status_code != 503:
                raise SystemExit(answer.text)
            refused += 1
            await asyncio.sleep(random.uniform(0, 0.5))

    began = time.monotonic()
    async with (
        httpx.AsyncClient(base_url=place.replicas[0].url, headers=headers, trust_env=False, timeout=60.0) as one,
        httpx.AsyncClient(base_url=place.replicas[1].url, headers=headers, trust_env=False, timeout=60.0) as two,
    ):
        await asyncio.gather(*(write((one, two)[number % 2], number) for number in range(writes)))
    took_s = time.monotonic() - began
    with place.admin() as admin:
        newest = admin.get("/v1/revisions?limit=1").json()["items"][0]
        gaps = _gaps(admin, first)
    await until_all(nodes, newest["revision"], WAIT_S)
    digests = {node.digest for node in nodes}
    return {
        "writes": writes,
        "writes a second": writes / took_s,
        "writes that had to be repeated (503)": refused,
        "revisions made": newest["revision"] - first,
        "gaps in their numbers": gaps,
        "nodes that do not end on the last": sum(node.revision != newest["revision"] for node in nodes)
        + (digests != {newest["digest"]}),
    }


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


async def _takeover(place: Place) -> dict[str, Any]:
    with place.admin() as admin:
        leader = admin.get("/v1/jobs").json()["leader"]["replica"]
    number = int(leader.rpartition("-")[2])
    other = 1 - number
    place.replicas[number].child.kill()
    began = time.monotonic()
    with place.admin(other) as admin:
        while admin.get("/v1/jobs").json()["leader"]["replica"] == leader:
            if time.monotonic() - began > WAIT_S:
                raise SystemExit("nobody took over")
            await asyncio.sleep(0.02)
        led_s = time.monotonic() - began
        asked = admin.post("/v1/jobs/drift-check/run").json()
        while asked["running"] or asked["last_started_at"] is None or asked["last_started_at"] < asked["requested_at"]:
            if time.monotonic() - began > WAIT_S:
                raise SystemExit("the drift check did not end")
            await asyncio.sleep(0.2)
            asked = admin.get("/v1/jobs/drift-check").json()
    if asked["last_outcome"] != "done":
        raise SystemExit(f"the drift check after all this: {asked['last_detail']}")
    return {"leader killed to another leads, s": led_s, "drift check of all documents, s": asked["last_duration_s"]}


if __name__ == "__main__":
    typer.run(main)
