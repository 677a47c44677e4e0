"""An agent inside the test's process, beside the nodes of a region that a test makes, and the control plane of both."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import httpx

from data_plane.agent import Agent
from testing.node import agent_settings_for, node_client, serving, write_snapshot
from testing.played import PlayedControlPlane


@contextlib.asynccontextmanager
async def agent_beside(
    tmp_path: Path, redis_url: str, values: Iterable[object], *, revision: int = 1, **settings: object
) -> AsyncIterator[tuple[Agent, PlayedControlPlane]]:
    """An agent that has proven its shares, and the control plane by which it has."""
    snapshot = tmp_path / "agent-snapshot"
    await write_snapshot(snapshot, values, revision)
    async with PlayedControlPlane().running() as control_plane:
        known = {"control_plane_url": control_plane.url, **settings}
        agent = Agent(agent_settings_for(snapshot, redis_url, **known))
        async with serving(agent), asyncio.timeout(10):
            while not agent.status()["rights"]["proven"]:
                await asyncio.sleep(0.01)
            yield agent, control_plane


async def proven(client: httpx.AsyncClient) -> None:
    """Wait until a node serves strict limits."""
    async with asyncio.timeout(10):
        while not (await client.get("/v1/status")).json()["rights"]["proven"]:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def node_with_agent(
    tmp_path: Path,
    redis_url: str,
    values: Iterable[object],
    *,
    lane: bool = True,
    revision: int = 1,
    **settings: object,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a node that enforces ``values``, strict limits and factors of backends too, beside an agent."""
    values = list(values)
    async with (
        agent_beside(tmp_path, redis_url, values, revision=revision),
        node_client(tmp_path, redis_url, values, lane=lane, revision=revision, **settings) as client,
    ):
        await proven(client)
        yield client
