"""`python -m tools.bench.push`: seconds from an admin's request to every node, takeover of the leader, many writes."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from tidegate.stack.ports import LOOPBACK
from tools.bench.push import applying, counting, report, usage
from tools.bench.push.fleet import SimulatedNode, until_all
from tools.bench.push.place import Place, client_name, running, seed_keys

WAIT_S = 120.0
REGION = "us-east"
WATCHING = 20
"""Nodes that must end on the last of many writes: they share two cores with who writes and who answers."""
DOCUMENT = Path("docs/benchmarks-control-plane.md")


class Part(StrEnum):
    """What can be measured alone, each with a Postgres and replicas of its own."""

    LOAD = "load"
    """`tidegate apply` of all clients, a node that loads them, and the death of the leader."""
    PUSH = "push"
    """Changes to many nodes, and all of them back at once."""
    WRITES = "writes"
    """Parallel writers through two replicas."""
    USAGE = "usage"
    """Usage of many clients: rolling up, who is near a limit, what-if."""


def main(
    parts: Annotated[list[Part] | None, typer.Option("--part", help="Only that; may be repeated.")] = None,
    nodes: Annotated[int, typer.Option(min=1, max=5_000, help="Simulated nodes that get changes.")] = 500,
    clients: Annotated[int, typer.Option(min=1, max=1_000_000, help="Clients with a key each.")] = 100_000,
    changes: Annotated[int, typer.Option(min=1, max=1_000, help="Changes, one after the other.")] = 20,
    writes: Annotated[int, typer.Option(min=1, max=100_000, help="Writes with If-Match by two replicas.")] = 10_000,
    for_s: Annotated[float, typer.Option("--write-for-s", min=1, help="As many as begin in it.")] = 3_600.0,
    out: Annotated[
        Path | None, typer.Option("--json", help="Keep the figures here, beside those of other parts.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help=f"Write {DOCUMENT} when every part was measured.")] = False,
) -> None:
    """Measure the push of changes on this machine, with real processes and the real stream."""
    console = Console(width=140)
    figures: dict[str, Any] = json.loads(out.read_text()) if out is not None and out.exists() else {}
    for part in parts or list(Part):
        if part is Part.USAGE:
            for size in usage.SIZES:
                figures |= {f"{part}: {name}": value for name, value in _usage(*size, console).items()}
                if out is not None:
                    out.write_text(json.dumps(figures, indent=1))
            continue
        with tempfile.TemporaryDirectory(prefix="tidegate-push-") as root, running(Path(root), 2) as place:
            console.print(part)
            if part is Part.WRITES:
                found = asyncio.run(_writes(place, writes, for_s))
            else:
                found = _applied(place, Path(root) / "tidegate.json", clients)
                console.print(found)
                seed_keys(place, clients)
                if part is Part.LOAD:
                    found |= applying.read_yaml(Path(root) / "clients.yaml")
                    found |= _load(place, console)
                else:
                    found = {"nodes": nodes, "clients that they hold": clients}
                    found |= asyncio.run(_push(place, nodes, changes))
            figures |= {f"{part}: {name}": value for name, value in found.items()}
        if out is not None:
            out.write_text(json.dumps(figures, indent=1))
    table = Table("figure", "value", title="push of changes")
    for name, value in figures.items():
        table.add_row(name, report.shown(value))
    console.print(table)
    if write:
        DOCUMENT.write_text(report.page(figures))


def _usage(clients: int, days: int, console: Console) -> dict[str, Any]:
    console.print(f"usage of {clients:,} clients, {days} days")
    with tempfile.TemporaryDirectory(prefix="tidegate-usage-") as root, running(Path(root), 1) as place:
        return asyncio.run(usage.measured(place, clients, days, WAIT_S, console))


def _applied(place: Place, file: Path, clients: int) -> dict[str, Any]:
    applying.write_file(file, clients)
    return {"clients of the file": clients} | applying.timed_apply(place, file, clients)


def _load(place: Place, console: Console) -> dict[str, Any]:
    credential = _credential(place)
    figures: dict[str, Any] = {}
    for name, value in _one_node_loads(place, credential).items():
        figures[f"a node loads them: {name}"] = value
    console.print(figures)
    return figures | asyncio.run(_takeover(place))


def _credential(place: Place) -> str:
    with place.admin() as admin:
        admin.put(f"/v1/regions/{REGION}", json={}).raise_for_status()
        credential: str = admin.post(f"/v1/regions/{REGION}/credentials").raise_for_status().json()["credential"]
        return credential


@asynccontextmanager
async def _connected(
    place: Place, count: int, seen: dict[int, list[float]]
) -> AsyncIterator[tuple[list[SimulatedNode], float]]:
    """Simulated nodes, and the seconds until all had connected."""
    credential = _credential(place)
    with place.admin() as admin:
        head = admin.get("/v1/revisions?limit=1").json()["items"][0]
    nodes = [
        SimulatedNode((LOOPBACK, place.replicas[number % 2].port), credential, REGION, f"node-{number}",
                      lambda revision, at: seen.setdefault(revision, []).append(at))
        for number in range(count)
    ]  # fmt: skip
    for node in nodes:  # as after a restart, with the snapshot file of the newest revision
        node.revision, node.digest = head["revision"], head["digest"]
    began = time.monotonic()
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(node.connected.wait() for node in nodes))
        yield nodes, time.monotonic() - began
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _push(place: Place, count: int, changes: int) -> dict[str, Any]:
    seen: dict[int, list[float]] = {}
    async with _connected(place, count, seen) as (nodes, connected_s):
        figures: dict[str, Any] = {"all connected from nothing, s": connected_s}
        figures |= await _changes(place, nodes, seen, changes)
        return figures | await _return(place, nodes)


async def _writes(place: Place, writes: int, for_s: float) -> dict[str, Any]:
    with place.admin() as admin:
        limits = [{"name": "hourly", "limit": 1000, "window_s": 3600}]
        admin.put("/v1/plans/free", json={"limits": limits}).raise_for_status()
    async with _connected(place, WATCHING, {}) as (nodes, _):
        return await counting.counted(place, nodes, writes, for_s, WAIT_S)


def _one_node_loads(place: Place, credential: str) -> dict[str, float]:
    public_key = place.signing_key.public_key().public_bytes_raw().hex()
    command = [sys.executable, "-m", "tools.bench.push.node_load", place.replicas[0].url, REGION, public_key]
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
            answer = await admin.put(f"/v1/clients/{client_name(number)}", json=body, headers={"Prefer": "wait=30"})
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
