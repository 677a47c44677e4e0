"""Regions inside the test's process: a real store, nodes and agents each; proxies between them cut and delay."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from data_plane.agent import Agent
from data_plane.node import Node
from testing.node import agent_settings_for, key_of, serving, settings_for, write_snapshot
from testing.played import PlayedControlPlane
from testing.proxy import Proxy
from tidegate.contract.config import Client, Plan, Region
from tidegate.contract.credentials import make_credential, region_public_key
from tidegate.contract.limits import LimitRule
from tidegate.stack.ports import free_ports

NAMES = ("us-east", "eu-west", "ap-south", "sa-east")
CREDENTIALS = {name: make_credential("region", name.encode().ljust(32, b".")) for name in NAMES}
YOUNG = {"since_us": 2**52}
"""For strict limits that are younger than any store of these tests: nothing can have been forgotten."""


def equal_shares(limit: int, names: Sequence[str]) -> dict[str, int]:
    """As the control plane splits a limit that nobody split otherwise."""
    each, more = divmod(limit, len(names))
    return {name: each + (place < more) for place, name in enumerate(names)}


class Regions:
    """``clients[region]`` are one for each node, ``agent_clients[region]`` one for each agent. ``links[(to, from)]`` is
    the way by which one region's agents reach another's.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.stores: dict[str, Any] = {}
        self.nodes: dict[str, list[Node]] = {name: [] for name in names}
        self.agents: dict[str, list[Agent]] = {name: [] for name in names}
        self.clients: dict[str, list[httpx.AsyncClient]] = {name: [] for name in names}
        self.agent_clients: dict[str, list[httpx.AsyncClient]] = {name: [] for name in names}
        self.control_plane = PlayedControlPlane()
        self.links: dict[tuple[str, str], Proxy] = {}

    async def check(self, region: str, cost: int = 1, *, node: int = 0, key: str = "tg_acme") -> dict[str, Any]:
        """One decision with every limit in it."""
        body = {"api_key": key, "cost": cost, "explain": True}
        answer: dict[str, Any] = (await self.clients[region][node].post("/v1/check", json=body)).json()
        return answer

    async def allowed(self, region: str, cost: int = 1, *, node: int = 0) -> bool:
        """Whether it passed."""
        return bool((await self.check(region, cost, node=node))["allowed"])

    async def drain(self, region: str, most: int, *, node: int = 0) -> int:
        """Ask for one unit ``most`` times; how many were given."""
        return sum([await self.allowed(region, node=node) for _ in range(most)])

    async def remaining(self, region: str, *, node: int = 0) -> dict[str, int]:
        """What each limit says is left."""
        return {limit["policy"]: limit["remaining"] for limit in (await self.check(region, 0, node=node))["limits"]}

    async def status(self, region: str, *, node: int = 0) -> dict[str, Any]:
        """The node's own word."""
        answer: dict[str, Any] = (await self.clients[region][node].get("/v1/status")).json()
        return answer

    async def agent_status(self, region: str, *, agent: int = 0) -> dict[str, Any]:
        """The agent's own word."""
        answer: dict[str, Any] = (await self.agent_clients[region][agent].get("/v1/status")).json()
        return answer

    async def proven(self, seconds: float = 20.0) -> None:
        """Wait until every node serves strict limits."""

        async def everybody() -> bool:
            places = [(name, node) for name in self.names for node in range(len(self.clients[name]))]
            return all([(await self.status(name, node=node))["rights"]["proven"] for name, node in places])

        await self.until(everybody, seconds)

    async def restart_store(self, region: str) -> None:
        """End a region's server and start it again: what it held is gone."""
        child = self.stores[region].child
        await asyncio.to_thread(child.stop)
        await asyncio.to_thread(child.start)
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(self.stores[region].is_ready):
                await asyncio.sleep(0.02)

    async def until(self, holds: Callable[[], Any], seconds: float = 15.0) -> float:
        """Wait for a condition (an awaitable's result); the seconds that it took."""
        begun = time.monotonic()
        async with asyncio.timeout(seconds):
            while not await holds():
                await asyncio.sleep(0.02)
        return time.monotonic() - begun

    async def link(self, stack: contextlib.AsyncExitStack, ports: Mapping[str, Sequence[int]]) -> None:
        """Put a proxy on the way from each region to each other one, whose agents listen on ``ports``."""
        for to in self.names:
            for source in self.names:
                if to != source:
                    # the agents of a region share the work of talking, so that each link ends at another one
                    target = ports[to][self.names.index(source) % len(ports[to])]
                    self.links[(to, source)] = await stack.enter_async_context(Proxy(target).running())

    def seen_from(self, own: str) -> list[Region]:
        """Each region reaches another by a link of its own, so each has its own addresses of the others."""
        return [
            Region(
                region=name, peer_url=self.links[(name, own)].url if name != own else None,
                public_key=region_public_key(CREDENTIALS[name]),
            )
            for name in self.names
        ]  # fmt: skip

    async def cut(self, *between: str) -> None:
        """Reset and refuse every connection between these regions (none named: all)."""
        for pair, link in self.links.items():
            if not between or set(pair) <= set(between):
                await link.cut()

    async def heal(self) -> None:
        """Let everything through again."""
        for link in self.links.values():
            await link.heal()

    def delay(self, seconds: float) -> None:
        """Hold back what regions say, each way."""
        for link in self.links.values():
            link.delay_s = seconds


@contextlib.asynccontextmanager
async def regions_running(
    tmp_path: Path, start_store: Callable[[], Any], limits: Sequence[LimitRule],
    names: Sequence[str] = NAMES[:2], *, nodes: int = 1, agents: int = 1,
) -> AsyncIterator[Regions]:  # fmt: skip
    """Regions under a configuration of one plan for the client ``acme``."""
    regions = Regions(names)
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            regions.stores[name] = start_store()
            stack.callback(regions.stores[name].child.stop)
        await stack.enter_async_context(regions.control_plane.running())
        ports = {name: free_ports(agents) for name in names}
        await regions.link(stack, ports)
        acme = (Plan(plan="p", limits=tuple(limits)), Client(client="acme", plan="p"), key_of("acme", "tg_acme"))
        for name in names:
            own = {
                "region": name, "region_credential": CREDENTIALS[name],
                "control_plane_url": regions.control_plane.url,
            }  # fmt: skip
            url_of_store, documents = regions.stores[name].url, [*acme, *regions.seen_from(name)]
            for number, port in enumerate(ports[name]):
                snapshot = tmp_path / f"{name}-agent-{number}"
                await write_snapshot(snapshot, documents)
                agent = Agent(agent_settings_for(snapshot, url_of_store, node=f"{name}-agent-{number}", **own))
                regions.agents[name].append(agent)
                url = await stack.enter_async_context(serving(agent, port=port))
                client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=10)
                regions.agent_clients[name].append(await stack.enter_async_context(client))
            for number in range(nodes):
                snapshot = tmp_path / f"{name}-{number}"
                await write_snapshot(snapshot, documents)
                node = Node(settings_for(snapshot, url_of_store, node=f"{name}-{number}", **own))
                regions.nodes[name].append(node)
                url = await stack.enter_async_context(serving(node))
                client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=10)
                regions.clients[name].append(await stack.enter_async_context(client))
        await regions.proven()
        yield regions
