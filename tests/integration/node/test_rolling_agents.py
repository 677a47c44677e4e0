"""Agents of a region restarted one after the other, or killed: no other region takes it for unreachable for long."""

import asyncio
import contextlib

from testing.node import key_of, rule
from testing.region_processes import processes_running
from testing.regions import NAMES
from tidegate.contract.config import Client, Plan

TWO = NAMES[:2]
CONFIG = [
    Plan(plan="p", limits=(rule(1, "shared", 1_000_000, mode="shared", algorithm="fixed_window"),)),
    Client(client="acme", plan="p"), key_of("acme", "tg_acme"),
]  # fmt: skip


class Watch:
    """Looks at every node all the time, under a little traffic; ``seen`` are peers that one took for unreachable."""

    def __init__(self, regions):
        self._regions = regions
        self.seen = []
        self.looks = 0

    async def run(self):
        while True:
            for name in TWO:
                await self._regions.allowed(name)
                peers = (await self._regions.status(name))["peers"]
                self.seen += [(name, peer, state) for peer, state in peers.items() if state["silent"]]
                self.looks += 1
            await asyncio.sleep(0.05)


async def restarted(regions, region, agent):
    """SIGTERM, and start again; whoever balances the agents asks the other one while this is not ready."""
    child, client = regions.agent_processes[region][agent], regions.agent_clients[region][agent]
    other = regions.agent_clients[region][1 - agent].base_url.port
    ending = asyncio.create_task(asyncio.to_thread(child.stop, 30))
    async with asyncio.timeout(30):
        with contextlib.suppress(OSError):
            while (await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.02)
    for (to, _), link in regions.links.items():
        if to == region:
            link.target = ("127.0.0.1", other)
    await ending
    child.start()
    await regions.agent_ready(region, agent)


async def test_a_rolling_restart_of_a_regions_agents_makes_nobody_unreachable(tmp_path):
    settings = {"TIDEGATE_DRAIN_S": "2"}
    async with processes_running(tmp_path, TWO, CONFIG, nodes=1, agents=2, settings=settings) as regions:
        await regions.heard()
        watch = Watch(regions)
        watching = asyncio.create_task(watch.run())
        try:
            for agent in range(2):
                await restarted(regions, "us-east", agent)
                await asyncio.sleep(3)  # as long as it takes to be noticed
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        assert watch.looks > 20
        assert watch.seen == []


async def test_an_agent_that_is_killed_is_replaced_before_peers_miss_it_for_long(tmp_path):
    """It cannot hand anything over: peers take the region for unreachable after 2 s, and for a moment only."""
    async with processes_running(tmp_path, TWO, CONFIG, nodes=1, agents=2) as regions:
        await regions.heard()
        watch = Watch(regions)
        watching = asyncio.create_task(watch.run())
        try:
            for (to, _), link in regions.links.items():
                if to == "us-east":
                    link.target = ("127.0.0.1", regions.agent_clients[to][1].base_url.port)
            await asyncio.to_thread(regions.agent_processes["us-east"][0].kill)
            await asyncio.sleep(7)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        assert len(watch.seen) < watch.looks / 5, "for less than 1.5 of 7 s"
