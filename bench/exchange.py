"""What the exchange between regions costs and keeps, by hand: ``python -m bench.exchange cost|strict|cut``.

``cost`` runs nodes as processes of their own and measures their CPU, with ``shared`` limits and, as the baseline, with
the same load on ``regional`` ones. ``strict`` and ``cut`` run all in this process, with links that delay and cut.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import typer

from bench.machine import process_cpu_s
from contract.config import Plan, Region
from contract.credentials import make_credential, region_public_key
from contract.limits import LimitRule
from tests.servers.node import PUBLIC_KEY, rule, write_snapshot
from tests.servers.regions import NAMES, YOUNG, Regions, equal_shares, regions_running
from tidegate.stack.child import wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.store import StoreServer

BATCH = 100
WINDOW_S = 60
SETTLED_S = 20
"""What the keys' first use has to say is said by then."""
app = typer.Typer(add_completion=False)


class Cost(NamedTuple):
    """One setting, measured: CPU is per node, bytes are what one node sends to one peer."""

    rate: float
    """Requests a second in all, as they came through."""
    cpu_share: float
    sent_mb_s: float
    messages_s: float
    cells_s: float


@app.command()
def cost(seconds: int = 20, keys: str = "10000,100000", rates: str = "2000,500", regions: str = "3,2") -> None:
    """CPU and bytes of the exchange by keys, rate and regions; the first of each list is varied one at a time."""
    key_counts, rate_list, sizes = ([int(one) for one in text.split(",")] for text in (keys, rates, regions))
    settings = [(key_counts[-1], rate_list[0], sizes[0])]
    settings += [(count, rate_list[0], sizes[0]) for count in key_counts[:-1]]
    settings += [(key_counts[-1], rate, sizes[0]) for rate in rate_list[1:]]
    settings += [(key_counts[-1], rate_list[0], size) for size in sizes[1:]]
    print(
        "| keys | requests/s in all | regions | CPU a node | of it the exchange | MB/s a peer | messages/s | cells/s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for count, rate, size in settings:
        alone = asyncio.run(_cost("regional", count, rate, size, seconds))
        told = asyncio.run(_cost("shared", count, rate, size, seconds))
        print(
            f"| {count:,} | {told.rate:,.0f} | {size} | {told.cpu_share:.1%} | {told.cpu_share - alone.cpu_share:.1%} "
            f"| {told.sent_mb_s:.3f} | {told.messages_s:.1f} | {told.cells_s:.0f} |",
            flush=True,
        )


async def _cost(mode: str, keys: int, rate: int, size: int, seconds: int) -> Cost:
    names = NAMES[:size]
    limit = LimitRule(
        id=1, name="per-ip", scope="ip", limit=10**6, window_us=3_600_000_000, mode=mode,  # type: ignore[arg-type]
        shares=equal_shares(10**6, names) if mode == "regional" else {},
    )  # fmt: skip
    plan = Plan(plan="anonymous", limits=(limit,))
    async with _processes(names, [plan]) as nodes, httpx.AsyncClient(trust_env=False, timeout=30) as client:
        everyone = list(range(keys))
        for start in range(0, keys, BATCH):  # every key is in use before anything is measured
            url = nodes[start // BATCH % size].url
            await _ask(client, url, everyone[start : start + BATCH])
        await asyncio.sleep(SETTLED_S if mode == "shared" else 1)
        before = [(process_cpu_s(node.pid), await _figures(client, node.url)) for node in nodes]
        begun = time.monotonic()
        await _load(client, [node.url for node in nodes], keys, rate, seconds)
        took = time.monotonic() - begun
        after = [(process_cpu_s(node.pid), await _figures(client, node.url)) for node in nodes]
    cpu = max((later[0] - earlier[0]) / took for earlier, later in zip(before, after, strict=True))
    grown = [
        {name: later[1][name] - earlier[1].get(name, 0) for name in later[1]}
        for earlier, later in zip(before, after, strict=True)
    ]
    return Cost(
        rate * seconds // BATCH * BATCH / took,
        cpu,
        max(one["bytes"] for one in grown) / took / 1e6 / (size - 1),
        max(one["messages"] for one in grown) / took,
        max(one["cells"] for one in grown) / took,
    )


class _Process(NamedTuple):
    url: str
    pid: int


@contextlib.asynccontextmanager
async def _processes(names: Sequence[str], limits: Iterable[object]) -> AsyncIterator[list[_Process]]:
    """A node and a store for each region, as processes."""
    credentials = {name: make_credential("region", hashlib.sha256(name.encode()).digest()) for name in names}
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    config = [
        *limits,
        *(
            Region(
                region=name, peer_url=f"http://127.0.0.1:{ports[name]}", public_key=region_public_key(credentials[name])
            )
            for name in names
        ),
    ]
    async with contextlib.AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        snapshot = root / "snapshot"
        await write_snapshot(snapshot, config)
        nodes = []
        for name in names:
            store = StoreServer(root / name, port=free_ports(1)[0], password="bench", log_path=root / f"{name}.log")
            store.prepare()
            store.child.start()
            stack.callback(store.child.stop)
            wait_until_ready(store.child, store.is_ready, timeout_s=10)
            env = {
                **os.environ,
                "TIDEGATE_NODE": f"{name}-1", "TIDEGATE_REGION": name, "TIDEGATE_PORT": str(ports[name]),
                "TIDEGATE_LOG_LEVEL": "error", "TIDEGATE_REDIS_URL": store.url,
                "TIDEGATE_CONTROL_PLANE_URL": "http://127.0.0.1:9", "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY,
                "TIDEGATE_REGION_CREDENTIAL": credentials[name], "TIDEGATE_SNAPSHOT_FILE": str(snapshot),
                "TIDEGATE_DRAIN_S": "0", "TIDEGATE_TRUST": "network", "TIDEGATE_REDIS_DEADLINE_MS": "50",
            }  # fmt: skip
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tidegate", "data-plane", env=env)
            stack.push_async_callback(_end, process)
            nodes.append(_Process(f"http://127.0.0.1:{ports[name]}", process.pid))
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
            for node in nodes:
                while not await _is_ready(client, node.url):  # noqa: ASYNC110  another process tells no event
                    await asyncio.sleep(0.1)
        yield nodes


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    await process.wait()


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url + "/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def _ask(client: httpx.AsyncClient, url: str, numbers: Iterable[int]) -> None:
    checks = [{"ip": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", "method": "GET", "path": "/"} for n in numbers]
    (await client.post(url + "/v1/check/batch", json={"checks": checks})).raise_for_status()


async def _load(client: httpx.AsyncClient, urls: Sequence[str], keys: int, rate: int, seconds: int) -> None:
    """Batches in turn to every node, at an even rate."""
    chance, begun = random.Random(1), time.monotonic()
    for number in range(rate * seconds // BATCH):
        await asyncio.sleep(max(0.0, begun + number * BATCH / rate - time.monotonic()))
        await _ask(client, urls[number % len(urls)], (chance.randrange(keys) for _ in range(BATCH)))


async def _figures(client: httpx.AsyncClient, url: str) -> dict[str, float]:
    text = (await client.get(url + "/metrics")).text
    names = {"bytes": "bytes_sent", "messages": "messages_sent", "cells": "cells_sent"}
    return {
        name: float(re.search(rf"^tidegate_peer_{metric}_total (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]
        for name, metric in names.items()
    }


@contextlib.contextmanager
def _stores() -> Any:
    """What tests call ``start_store``, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as root:
        count = iter(range(100))

        def start() -> StoreServer:
            folder = Path(root) / str(next(count))
            folder.mkdir()
            store = StoreServer(folder / "data", port=free_ports(1)[0], password="bench", log_path=folder / "log")
            store.prepare()
            store.child.start()
            wait_until_ready(store.child, store.is_ready, timeout_s=10)
            return store

        yield Path(root), start


def _exact(limit: int, names: Sequence[str], window_us: int, algorithm: str) -> LimitRule:
    return rule(
        1, "exact", limit, mode="strict", algorithm=algorithm, window_us=window_us, on_store_failure="closed",
        shares=equal_shares(limit, names), **YOUNG,
    )  # fmt: skip


@app.command()
def strict(limit: int = 6_000, per_second: int = 140, delay_ms: int = 50, algorithm: str = "fixed_window") -> None:
    """How much of a strict limit of a minute is used at a demand of 95:5 against equal shares."""
    asyncio.run(_strict(limit, per_second, delay_ms, algorithm))


async def _strict(limit: int, per_second: int, delay_ms: int, algorithm: str) -> None:
    names = NAMES[:2]
    with _stores() as (root, start):
        limits = [_exact(limit, names, WINDOW_S * 1_000_000, algorithm)]
        async with regions_running(root, start, limits, names) as regions:
            regions.delay(delay_ms / 1_000)
            await asyncio.sleep(WINDOW_S - time.time() % WINDOW_S)
            window = time.time() // WINDOW_S
            given = dict.fromkeys(names, 0)
            asked = degraded = 0

            async def one(region: str) -> None:
                nonlocal degraded
                answer = await regions.check(region)
                given[region] += answer["allowed"]
                degraded += answer["degraded"]

            begun, chance = time.monotonic(), random.Random(1)
            async with asyncio.TaskGroup() as group:
                while time.time() // WINDOW_S == window and time.time() % WINDOW_S < WINDOW_S - 0.3:
                    group.create_task(one(names[0] if chance.random() < 0.95 else names[1]))
                    asked += 1
                    await asyncio.sleep(max(0.0, begun + asked / per_second - time.monotonic()))
            total = sum(given.values())
            told = {name: (await regions.status(name))["rights"]["asked"] for name in names}
            print(
                f"{algorithm}: asked {asked}, admitted {given}, {total} of {limit}, {total / limit:.1%}; "
                f"questions {told}, without the store {degraded}"
            )


@app.command()
def cut(seconds: float = 10.0, limit: int = 3_000, delay_ms: int = 50, algorithm: str = "fixed_window") -> None:
    """Three regions of two nodes, cut for a while under load: overshoot, and how soon counts agree after the heal."""
    asyncio.run(_cut(seconds, limit, delay_ms, algorithm))


async def _cut(seconds: float, limit: int, delay_ms: int, algorithm: str) -> None:
    names = NAMES[:3]
    hour_us = 3_600_000_000
    limits = [
        _exact(limit, names, hour_us, algorithm),
        rule(2, "shared", limit, mode="shared", algorithm=algorithm, window_us=hour_us),
    ]
    for place, kind in enumerate(("strict", "shared")):
        with _stores() as (root, start):
            async with regions_running(root, start, [limits[place]], names, nodes=2) as regions:
                regions.delay(delay_ms / 1_000)
                await asyncio.sleep(3)
                before = await _pressed(regions, 2.0)
                await regions.cut()
                during = await _pressed(regions, seconds)
                await regions.heal()
                healed = time.monotonic()
                policy = limits[place].name

                async def agree(regions: Regions = regions, policy: str = policy) -> bool:
                    return len({(await regions.remaining(name))[policy] for name in names}) == 1

                if kind == "shared":
                    await regions.until(agree)
                agreed_s = time.monotonic() - healed
                after = await _pressed(regions, 1.0)
                total = before.admitted + during.admitted + after.admitted
                agreed = f"; counts agreed after {agreed_s:.2f} s" if kind == "shared" else ""
                print(
                    f"{kind} {algorithm}: {before} before, {during} in {seconds:g} s of a cut, {after} after: "
                    f"{total} of {limit}, overshoot {max(0, total - limit)}{agreed}"
                )


class Pressed(NamedTuple):
    """What came of asking everywhere for a while."""

    admitted: int
    asked: int
    degraded: int

    def __str__(self) -> str:
        """For the line that is printed."""
        return f"{self.admitted} of {self.asked}" + (f" ({self.degraded} without the store)" if self.degraded else "")


async def _pressed(regions: Regions, seconds: float) -> Pressed:
    """Ask on every node as fast as it answers."""
    admitted = asked = degraded = 0
    ends = time.monotonic() + seconds

    async def ask(region: str, node: int) -> None:
        nonlocal admitted, asked, degraded
        while time.monotonic() < ends:
            answer = await regions.check(region, node=node)
            asked += 1
            admitted += answer["allowed"]
            degraded += answer["degraded"]

    await asyncio.gather(*(ask(name, node) for name in regions.names for node in range(2)))
    return Pressed(admitted, asked, degraded)


if __name__ == "__main__":
    app()
