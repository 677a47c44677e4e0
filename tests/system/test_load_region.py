"""Three nodes protect a backend: one of three agents decides, all apply the same, another goes on when it is gone."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from testing.forked import ForkedChild
from testing.node import NOWHERE, PUBLIC_KEY, REGION_CREDENTIAL, write_snapshot
from tidegate.contract.config import Endpoint, Plan
from tidegate.contract.credentials import make_credential, secret_sha256
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter
from tidegate.stack.child import Child
from tidegate.stack.ports import free_ports

NODES = ("n1", "n2", "n3")
AGENTS = ("a1", "a2", "a3")
SECRETS = [make_credential("reporter", bytes(range(at, at + 32))) for at in (2, 3)]
CUT = 0.8
ENOUGH_S = 60.0
CONFIG = [
    AdaptivePolicy(policy="protect", cut_after=1, smoothing=1.0, floor=CUT),
    Backend(backend="users", adaptive="protect"),
    Endpoint(endpoint="all", method="*", path="/users/{id}", backend="users"),
    Plan(plan="low"),
    *(Reporter(reporter=f"r{at}", sha256=secret_sha256(one), backends=("users",)) for at, one in enumerate(SECRETS)),
]


class Seen(NamedTuple):
    """What a node applies."""

    decided_at: float
    by: str
    factor: float


class Region:
    """Nodes and agents, who reports to the nodes, and all that they were ever seen to apply."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        names = (*NODES, *AGENTS)
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._client = httpx.AsyncClient(trust_env=False, timeout=2)
        self.children = {name: self._child(name, directory, redis_url) for name in names}
        self.present = set(AGENTS)
        """Agents that run."""
        self.now: dict[str, Seen] = {}
        self.decisions: dict[float, tuple[str, float]] = {}
        self.first_seen: dict[float, dict[str, float]] = {}
        """When each node was first seen to apply a factor, by that factor; seconds of the monotonic clock."""
        self.cpu = 0.5

    def _child(self, name: str, directory: Path, redis_url: str) -> Child:
        env = {
            "TIDEGATE_NODE": name, "TIDEGATE_REGION": "us-east", "TIDEGATE_PORT": str(self._ports[name]),
            "TIDEGATE_TRUST": "network", "TIDEGATE_REDIS_URL": redis_url, "TIDEGATE_REDIS_DEADLINE_MS": "2000",
            "TIDEGATE_CONTROL_PLANE_URL": NOWHERE, "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY,
            "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL,
            "TIDEGATE_SNAPSHOT_FILE": str(directory / f"snapshot-{name}"),
        }  # fmt: skip
        command = "region-agent" if name in AGENTS else "data-plane"
        return ForkedChild(name, command, log_path=directory / f"{name}.log", env=env)

    async def report(self) -> None:
        """Both reporters speak four times a second, to whichever node answers."""
        while True:
            for name in NODES:
                with suppress(httpx.HTTPError):
                    for secret in SECRETS:
                        body = {"backend": "users", "cpu": self.cpu}
                        await self._client.post(
                            self._url(name, "load"), json=body, headers={"x-tidegate-token": secret}
                        )
                    break
            await asyncio.sleep(0.25)

    async def watch(self) -> None:
        """Look at what every node applies, over and over."""
        while True:
            await asyncio.gather(*(self._look(name) for name in NODES))
            await asyncio.sleep(0.05)

    async def _look(self, name: str) -> None:
        try:
            adaptive = (await self._client.get(self._url(name, "status"))).json()["adaptive"]
        except httpx.HTTPError:
            return
        for load in adaptive["backends"]:
            seen = Seen(load["decided_at"], load["decided_by"], load["factor"])
            before = self.now.get(name, seen)
            assert seen.decided_at >= before.decided_at, f"{name} went back from {before} to {seen}"
            decision = self.decisions.setdefault(seen.decided_at, (seen.by, seen.factor))
            assert decision == (seen.by, seen.factor), f"{name} applies {seen}, others {decision}"
            self.now[name] = seen
            self.first_seen.setdefault(seen.factor, {}).setdefault(name, time.monotonic())

    async def until(self, condition: Callable[[Seen], bool], what: str) -> set[str]:
        """Wait until it holds on every node; returns who decided."""
        try:
            async with asyncio.timeout(ENOUGH_S):
                while not all(name in self.now and condition(self.now[name]) for name in NODES):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"{what}: {self.now}")
        return {self.now[name].by for name in NODES}

    async def decider(self) -> str:
        """Who decides, once all present agree on it."""
        deciders: set[str] = set()
        while len(deciders) != 1:
            deciders = await self.until(lambda seen: seen.by in self.present, "somebody present decides")
        return deciders.pop()

    async def taken_over(self, gone: str) -> float:
        """Wait until somebody else has decided; seconds since the last decision of who is gone."""
        last = max(at for at, (by, _) in self.decisions.items() if by == gone)
        await self.until(lambda seen: seen.by != gone and seen.decided_at > last, f"somebody replaces {gone}")
        return min(at for at, (by, _) in self.decisions.items() if by != gone and at > last) - last

    def spread_s(self, factor: float) -> float:
        """How long after the first the last node was seen to apply a factor."""
        seen = self.first_seen[factor].values()
        return max(seen) - min(seen)

    async def close(self) -> None:
        await self._client.aclose()

    def _url(self, name: str, path: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}/v1/{path}"


@pytest.fixture
async def region(tmp_path: Path, valkey_url: str) -> AsyncIterator[Region]:
    for name in (*NODES, *AGENTS):
        await write_snapshot(tmp_path / f"snapshot-{name}", CONFIG)
    made = Region(tmp_path, valkey_url)
    try:
        for child in made.children.values():
            child.start()
        yield made
    finally:
        await made.close()
        for child in made.children.values():
            child.kill()


async def test_one_decides_all_apply_the_same_and_another_goes_on_when_it_is_gone(region: Region) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(region.watch()), group.create_task(region.report())]
        first = await region.decider()
        region.cpu = 2.0
        await region.until(lambda seen: seen.factor == CUT, "all apply the cut")
        region.cpu = 0.78  # neither calls for a cut nor leaves room for a raise

        os.kill(region.children[first].pid, signal.SIGSTOP)
        region.present.remove(first)
        after_freeze_s = await region.taken_over(first)
        second = await region.decider()
        os.kill(region.children[first].pid, signal.SIGCONT)
        region.present.add(first)
        last = max(region.decisions)
        await region.until(lambda seen: seen.decided_at > last, "somebody decides on")
        assert await region.decider() == second, "who was frozen does not take it back"

        region.children[second].kill()
        region.present.remove(second)
        after_kill_s = await region.taken_over(second)
        assert await region.decider() != second
        for task in tasks:
            task.cancel()
    assert {factor for _, factor in region.decisions.values()} == {1.0, CUT}, "each went on where the other stood"
    print(  # noqa: T201
        f"\nthe last of {len(NODES)} nodes applied the cut {region.spread_s(CUT):.2f} s after the first; no decision "
        f"for {after_freeze_s:.1f} s when the deciding node froze, for {after_kill_s:.1f} s when it was killed"
    )
