"""Strict limits on processes: silence while rights are plentiful, and how much of a limit is used when they are not."""

import asyncio
import random
import re
import tempfile
import time
from pathlib import Path

import httpx

from testing.node import key_of, rule
from testing.region_processes import RegionProcesses, processes_running
from testing.regions import NAMES, YOUNG, equal_shares
from tidegate.contract.config import Client, Plan
from tidegate.contract.limits import LimitRule
from tools.bench.exchange.results import Plentiful, Skewed

TWO = NAMES[:2]
DELAY_MS = 50
WINDOW_S = 60
LIMIT = 6_000
PER_SECOND = 140
LONG_S = 0.3
"""So long before the end of the window nothing more is asked: it would be counted in the next."""
REQUESTS = 2_000


async def plentiful() -> Plentiful:
    """Requests in both regions, each with far more rights than they want."""
    exact = _exact(10**6)
    with tempfile.TemporaryDirectory() as root:
        async with processes_running(Path(root), TWO, _config(exact)) as regions:
            places = [(name, node) for name in TWO for node in range(2)]
            admitted = await asyncio.gather(
                *(regions.drain(name, REQUESTS // len(places), node=node) for name, node in places)
            )
            assert sum(admitted) == REQUESTS
            messages, questions = 0, 0
            for name in TWO:
                for agent, client in enumerate(regions.agent_clients[name]):
                    messages += await _messages(client)
                    questions += sum((await regions.agent_status(name, agent=agent))["rights"]["asked"].values())
    return Plentiful(requests=REQUESTS, messages=messages, questions=questions)


async def skewed() -> Skewed:
    """One whole window under demand above the limit, 95 of 100 requests in one region."""
    exact = _exact(LIMIT)
    with tempfile.TemporaryDirectory() as root:
        async with processes_running(Path(root), TWO, _config(exact)) as regions:
            regions.delay(DELAY_MS / 1_000)
            await asyncio.sleep(WINDOW_S - time.time() % WINDOW_S)
            return await _window(regions)


async def _window(regions: RegionProcesses) -> Skewed:
    admitted = dict.fromkeys(TWO, 0)
    asked = degraded = 0

    async def one(region: str, node: int) -> None:
        nonlocal degraded
        answer = await regions.check(region, node=node)
        admitted[region] += answer["allowed"]
        degraded += answer["degraded"]

    begun, chance, ends_at = time.monotonic(), random.Random(1), (time.time() // WINDOW_S + 1) * WINDOW_S - LONG_S
    async with asyncio.TaskGroup() as group:
        while time.time() < ends_at:
            group.create_task(one(TWO[0] if chance.random() < 0.95 else TWO[1], asked % 2))
            asked += 1
            await asyncio.sleep(max(0.0, begun + asked / PER_SECOND - time.monotonic()))
    told = [(await regions.agent_status(name, agent=agent))["rights"]["asked"] for name in TWO for agent in range(2)]
    return Skewed(
        limit=LIMIT, window_s=WINDOW_S, delay_ms=DELAY_MS, asked=asked, admitted=admitted, degraded=degraded,
        questions=sum(sum(one.values()) for one in told),
    )  # fmt: skip


def _exact(limit: int) -> LimitRule:
    return rule(  # type: ignore[no-untyped-call,no-any-return]  # of the tests
        1, "exact", limit, mode="strict", algorithm="fixed_window", window_us=WINDOW_S * 1_000_000,
        on_store_failure="closed", shares=equal_shares(limit, TWO), **YOUNG,
    )  # fmt: skip


def _config(limit: LimitRule) -> list[object]:
    return [Plan(plan="p", limits=(limit,)), Client(client="acme", plan="p"), key_of("acme", "tg_acme")]


async def _messages(client: httpx.AsyncClient) -> int:
    """How many messages about rights an agent has sent."""
    text = (await client.get("/metrics")).text
    sent = re.findall(r"^tidegate_rights_messages_total\{.*\} (\S+)$", text, re.MULTILINE)
    return round(sum(float(count) for count in sent))
