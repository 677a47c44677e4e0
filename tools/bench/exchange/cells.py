"""What one cell costs who sends it, who receives it, and their stores: two regions, and changes by a script of our own.

Every counter was told once before the measurement begins.

``python -m tools.bench.exchange.cells``. What decides is measured on a store of its own, and taken off what the
sender's store did; so is what everybody does without any load.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
import redis
import typer

from data_plane.store.packing import encode_check, encode_rule
from data_plane.store.scripts import decide_script
from testing.region_processes import RegionProcesses, processes_running
from tidegate.contract.config import Client, Plan
from tidegate.contract.counts import SLICES
from tidegate.contract.limits import LimitRule
from tools.bench.machine import process_cpu_s
from tools.bench.store_counts import SLOW_US, note_slow_calls, slow_calls

HERE, THERE = "us-east", "eu-west"
SHARED = LimitRule(id=2, name="l", limit=10**6, window_us=3_600_000_000, mode="shared")
A_CALL = 20
EVERY_S = 0.05
POLL_S = 0.5
WARM_RATE = 4_000


class Seen(NamedTuple):
    """What was used by one instant: microseconds of CPU of a region's processes, and cells."""

    agent: float
    node: float
    store: float
    cells: float


class Load:
    """Takes one unit of counter after counter, at an even rate."""

    def __init__(self, url: str, keys: int) -> None:
        self._client = redis.Redis.from_url(url)
        self._sha = self._client.script_load(decide_script())
        self._keys = keys
        self._next = 0
        self._check = encode_check(1, [encode_rule(SHARED, shared=True)])

    def take(self, number: int) -> None:
        """So many more counters."""
        for start in range(0, number, A_CALL):
            some = min(A_CALL, number - start)
            names = [b"{c%d}2" % ((self._next + at) % self._keys) for at in range(some)]
            self._next += some
            self._client.evalsha(self._sha, some + 1, b"tg:dirty", *names, *[self._check] * some)

    async def run(self, rate: int, seconds: float) -> int:
        """For so many seconds; how many were taken."""
        begun, taken = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            due = int((time.monotonic() - begun) * rate)
            await asyncio.to_thread(self.take, due - taken)
            taken = due
            await asyncio.sleep(EVERY_S)
        return taken


async def _status(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/v1/status")).json()
    return found


async def _seen(regions: RegionProcesses, region: str) -> Seen:
    status = await _status(regions.agent_clients[region][0])
    children = (regions.agent_processes[region][0], regions.processes[region][0], regions.stores[region].child)
    agent, node, store = (process_cpu_s(child.pid) * 1e6 for child in children)
    return Seen(agent, node, store, status["exchange"]["cells_sent"])


async def _all_sent(regions: RegionProcesses) -> bool:
    with redis.Redis.from_url(regions.stores[HERE].url) as client:
        return not any(client.zcard(f"tg:dirty{slice}") for slice in range(SLICES))


async def _staleness(regions: RegionProcesses, until_s: float) -> list[float]:
    found = []
    while time.monotonic() < until_s:
        peers = (await _status(regions.agent_clients[THERE][0]))["peers"]
        found.append(float(peers[HERE]["staleness_s"]))
        await asyncio.sleep(POLL_S)
    return found


async def measure(keys: int, rate: int, seconds: int) -> dict[str, float]:
    """The figures, by name."""
    plan = [Plan(plan="p", limits=(SHARED,)), Client(client="x", plan="p")]
    with tempfile.TemporaryDirectory() as root:
        async with processes_running(Path(root), [HERE, THERE], plan, nodes=1, agents=1,
                                     settings={"TIDEGATE_LOG_LEVEL": "error"}) as regions:  # fmt: skip
            await regions.heard()
            idle_before = {name: await _seen(regions, name) for name in (HERE, THERE)}
            await asyncio.sleep(seconds / 2)
            idle = {name: await _seen(regions, name) for name in (HERE, THERE)}
            for name in (HERE, THERE):
                note_slow_calls(regions.stores[name].url)
            load = Load(regions.stores[HERE].url, keys)
            await load.run(WARM_RATE, keys / WARM_RATE)  # active clients are known to both agents
            await regions.until(lambda: _all_sent(regions), 30)
            before = {name: await _seen(regions, name) for name in (HERE, THERE)}
            ends = time.monotonic() + seconds
            taken, stale = await asyncio.gather(load.run(rate, seconds), _staleness(regions, ends))
            await asyncio.sleep(2)
            after = {name: await _seen(regions, name) for name in (HERE, THERE)}
            slow = {name: slow_calls(regions.stores[name].url) for name in (HERE, THERE)}
            with redis.Redis.from_url(regions.stores[THERE].url) as client:
                client.flushall()
            for child in (regions.processes[THERE][0], regions.agent_processes[THERE][0]):
                child.stop()
            other = Load(regions.stores[THERE].url, keys)  # now a store like any other
            pid = regions.stores[THERE].child.pid
            decided_s = process_cpu_s(pid)
            await other.run(rate, seconds)
            a_check = (process_cpu_s(pid) - decided_s) / taken * 1e6
    whole_s = (seconds + 2) / (seconds / 2)
    cells = after[HERE].cells - before[HERE].cells

    def more(region: str, member: str) -> float:
        at_rest = (getattr(idle[region], member) - getattr(idle_before[region], member)) * whole_s
        return float(getattr(after[region], member) - getattr(before[region], member) - at_rest)

    def idle_share(member: str) -> float:
        return float(getattr(idle[HERE], member) - getattr(idle_before[HERE], member)) / (seconds / 2) / 1e4

    return {
        "changes": taken,
        "cells sent": cells,
        "sender, us of CPU a cell": more(HERE, "agent") / cells,
        "receiver, us of CPU a cell": more(THERE, "agent") / cells,
        "sender's store, us a cell (without deciding)": (more(HERE, "store") - taken * a_check) / cells,
        "receiver's store, us a cell": more(THERE, "store") / cells,
        "a decision in the store, us": a_check,
        "idle agent, % of a core": idle_share("agent"),
        "idle node, % of a core": idle_share("node"),
        "idle store, % of a core": idle_share("store"),
        "staleness, median s": statistics.median(stale),
        "staleness, most s": max(stale),
        f"calls over {SLOW_US} us at the sender's store": len(slow[HERE]),
        f"calls over {SLOW_US} us at the receiver's store": len(slow[THERE]),
        "longest call at the sender's store, us": slow[HERE][-1] if slow[HERE] else 0,
        "longest call at the receiver's store, us": slow[THERE][-1] if slow[THERE] else 0,
    }


def main(
    *,
    keys: Annotated[int, typer.Option(help="Counters in use.")] = 10_000,
    rate: Annotated[int, typer.Option(help="Changes a second, each of another counter.")] = 2_000,
    seconds: Annotated[int, typer.Option(help="How long it is measured.")] = 10,
) -> None:
    """Measure and print."""
    for name, value in asyncio.run(measure(keys, rate, seconds)).items():
        print(f"{name:50} {value:12.3f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
