"""The CPU and the bytes of telling counts: the same load once under ``shared`` limits, once under ``regional`` ones."""

import asyncio
import random
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx

from testing.region_processes import RegionProcesses, processes_running
from testing.regions import NAMES, equal_shares
from tidegate.contract.config import Client, Plan
from tidegate.contract.limits import LimitRule
from tools.bench.exchange.results import Cost, Setting
from tools.bench.machine import process_cpu_s

BATCH = 100
SETTLE_S = 120
NODES = 2
LIMIT = 10**6
HOUR_US = 3_600_000_000
Figures = dict[str, float]
METRICS = {
    "bytes": "tidegate_peer_bytes_sent", "messages": "tidegate_peer_messages_sent", "cells": "tidegate_peer_cells_sent",
}  # fmt: skip


async def cost_of(setting: Setting, seconds: int) -> Cost:
    """Measure one setting. Every key is in use, and its first use told, before the measurement begins."""
    names = NAMES[: setting.regions]
    with tempfile.TemporaryDirectory() as root:
        async with processes_running(
            Path(root), names, [*_plan("regional", names), *_plan("shared", names)], nodes=NODES, agents=NODES,
            settings={"TIDEGATE_LOG_LEVEL": "error"},
        ) as regions:  # fmt: skip
            nodes = _Nodes(regions)
            await regions.heard()
            for start in range(0, setting.keys, BATCH):
                await nodes.ask(start // BATCH, "shared", range(start, start + BATCH))
            await nodes.told()
            idle, alone, told = [await nodes.measure(mode, setting, seconds) for mode in ("", "regional", "shared")]
    most = {name: max(region[name] for region in told.regions) for name in METRICS}
    return Cost(
        setting=setting,
        seconds=seconds,
        rate=told.rate,
        cpu=told.cpu,
        cpu_alone=alone.cpu,
        cpu_idle=idle.cpu,
        sent_mb_s=most["bytes"] / 1e6 / (setting.regions - 1),
        messages_s=most["messages"],
        cells_s=most["cells"],
    )


class _Measured(NamedTuple):
    """``cpu`` is of the busiest agent; ``regions`` how each region's figures grew in a second."""

    rate: float
    cpu: float
    regions: list[Figures]


class _Nodes:
    """All nodes and agents of all regions, those of a region beside each other."""

    def __init__(self, regions: RegionProcesses) -> None:
        self._pids = [child.pid for name in regions.names for child in regions.agent_processes[name]]
        self._clients = [client for name in regions.names for client in regions.clients[name]]
        self._agents = [client for name in regions.names for client in regions.agent_clients[name]]

    async def ask(self, number: int, client: str, keys: Iterable[int]) -> None:
        """A batch, at the nodes in turn."""
        checks = [{"client": client, "ip": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"} for n in keys]
        answer = await self._clients[number % len(self._clients)].post("/v1/check/batch", json={"checks": checks})
        answer.raise_for_status()

    async def told(self) -> None:
        """Wait until nobody has anything to say any more."""
        async with asyncio.timeout(SETTLE_S):
            cells, quiet = -1.0, 0
            while quiet < 3:
                now = sum([(await _figures(client))["cells"] for client in self._agents])
                quiet = quiet + 1 if now == cells else 0
                cells = now
                await asyncio.sleep(1)

    async def measure(self, mode: str, setting: Setting, seconds: int) -> _Measured:
        """Load for keys by chance, in batches at an even rate, for the client of this mode; none where it is empty."""
        before = [process_cpu_s(pid) for pid in self._pids], [await _figures(client) for client in self._agents]
        begun = time.monotonic()
        chance, batches = random.Random(1), setting.rate * seconds // BATCH if mode else 0
        for number in range(batches):
            await asyncio.sleep(max(0.0, begun + number * BATCH / setting.rate - time.monotonic()))
            await self.ask(number, mode, [chance.randrange(setting.keys) for _ in range(BATCH)])
        await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
        took = time.monotonic() - begun
        after = [process_cpu_s(pid) for pid in self._pids], [await _figures(client) for client in self._agents]
        cpu = [(later - earlier) / took for earlier, later in zip(before[0], after[0], strict=True)]
        grown = [
            {name: (later[name] - earlier[name]) / took for name in METRICS}
            for earlier, later in zip(before[1], after[1], strict=True)
        ]
        regions = [grown[start : start + NODES] for start in range(0, len(grown), NODES)]
        return _Measured(
            batches * BATCH / took,
            max(cpu),
            [{name: sum(node[name] for node in nodes) for name in METRICS} for nodes in regions],
        )


def _plan(mode: str, names: Sequence[str]) -> list[object]:
    """A client whose limit by address is of this mode."""
    limit = LimitRule(
        id=1 + (mode == "shared"), name="per-ip", scope="ip", limit=LIMIT, window_us=HOUR_US,
        mode=mode, shares=equal_shares(LIMIT, names) if mode == "regional" else {},  # type: ignore[arg-type]
    )  # fmt: skip
    return [Plan(plan=mode, limits=(limit,)), Client(client=mode, plan=mode)]


async def _figures(client: httpx.AsyncClient) -> Figures:
    text = (await client.get("/metrics")).text
    found = {name: re.search(rf"^{metric}_total (\S+)$", text, re.MULTILINE) for name, metric in METRICS.items()}
    return {name: float(match[1]) for name, match in found.items() if match is not None}
