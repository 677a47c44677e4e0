"""What may happen to one region of ``RegionProcesses``: to a node, to an agent, and to the store."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

import redis

from testing.region_processes import RegionProcesses

AWAY_S = 0.5
COPY_AGE_S = 1.0
FROZEN_S = 3.0


async def node_killed(regions: RegionProcesses, region: str) -> None:
    """A node is gone at once, and comes back."""
    child = regions.processes[region][0]
    child.kill()
    await asyncio.sleep(AWAY_S)
    child.start()
    await regions.ready(region, 0)


async def agent_killed(regions: RegionProcesses, region: str) -> None:
    """An agent is gone at once, whatever it was about to say, and comes back."""
    child = regions.agent_processes[region][0]
    child.kill()
    await asyncio.sleep(AWAY_S)
    child.start()
    await regions.agent_ready(region, 0)


async def node_and_agent_killed(regions: RegionProcesses, region: str) -> None:
    """Both at once."""
    await asyncio.gather(node_killed(regions, region), agent_killed(regions, region))


async def agent_frozen(regions: RegionProcesses, region: str) -> None:
    """An agent stands still for longer than its leases last, and goes on as if nothing had been."""
    pid = regions.agent_processes[region][0].pid
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S)
    os.kill(pid, signal.SIGCONT)


async def store_killed(regions: RegionProcesses, region: str) -> None:
    """The store is gone at once, and comes back with nothing."""
    store = regions.stores[region]
    store.child.kill()
    (store.directory / "dump.rdb").unlink(missing_ok=True)
    await asyncio.sleep(AWAY_S)
    await regions.start_store(region)


async def store_flushed(regions: RegionProcesses, region: str) -> None:
    """Somebody deletes everything."""
    await asyncio.to_thread(_command, regions, region, "FLUSHALL")


async def store_rolled_back(regions: RegionProcesses, region: str) -> None:
    """The store is gone at once, and comes back with a copy that is a second old."""
    await asyncio.to_thread(_command, regions, region, "SAVE")
    await asyncio.sleep(COPY_AGE_S)
    regions.stores[region].child.kill()
    await regions.start_store(region)


def _command(regions: RegionProcesses, region: str, command: str) -> None:
    with redis.Redis.from_url(regions.stores[region].url) as client:
        client.execute_command(command)


FAULTS: Mapping[str, Callable[[RegionProcesses, str], Awaitable[None]]] = {
    "node-killed": node_killed,
    "agent-killed": agent_killed,
    "node-and-agent-killed": node_and_agent_killed,
    "agent-frozen": agent_frozen,
    "store-killed": store_killed,
    "store-flushed": store_flushed,
    "store-rolled-back": store_rolled_back,
}
