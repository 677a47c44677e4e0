"""Regions as operators run them: nodes, agents and stores are processes of their own; the links between are ours."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

import httpx

from testing.forked import ForkedChild
from testing.node import PATIENT_MS, PUBLIC_KEY, write_snapshot
from testing.regions import CREDENTIALS, Regions
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.store import StoreServer

START_S = 60.0


class RegionProcesses(Regions):
    """``processes[region]`` are its nodes, ``agent_processes[region]`` its agents.

    ``stores[region].child`` can be killed, and started again.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.processes: dict[str, list[Child]] = {name: [] for name in names}
        self.agent_processes: dict[str, list[Child]] = {name: [] for name in names}

    async def ready(self, region: str, node: int) -> None:
        """Wait until a node serves."""
        await self._ready(self.processes[region][node], self.clients[region][node])

    async def agent_ready(self, region: str, agent: int) -> None:
        """Wait until an agent serves."""
        await self._ready(self.agent_processes[region][agent], self.agent_clients[region][agent])

    async def _ready(self, child: Child, client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(START_S):
            while not await _is_ready(client):
                assert child.exit_code() is None, child.log_tail()
                await asyncio.sleep(0.05)

    async def heard(self) -> float:
        """Wait until every region hears every other one and takes none for silent; the seconds that it took."""

        async def everybody() -> bool:
            for name in self.names:
                told = [await self.status(name, node=node) for node in range(len(self.clients[name]))]
                if any(len(one["peers"]) < len(self.names) - 1 for one in told):
                    return False
                if any(state["silent"] for one in told for state in one["peers"].values()):
                    return False
            return True

        return await self.until(everybody, START_S)

    async def start_store(self, region: str) -> None:
        """Start a region's store (again), with the data that its directory holds."""
        store = self.stores[region]
        store.child.start()
        async with asyncio.timeout(START_S):
            while not await asyncio.to_thread(store.is_ready):
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def processes_running(
    root: Path, names: Sequence[str], values: Iterable[object], *, nodes: int = 2, agents: int = 2,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[RegionProcesses]:  # fmt: skip
    """Regions under a configuration of ``values``; ``settings`` are further ones of every node and agent."""
    regions, values = RegionProcesses(names), list(values)
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            regions.stores[name] = started_store(root, name)
            stack.callback(regions.stores[name].child.stop)
        await stack.enter_async_context(regions.control_plane.running())
        ports = dict(zip(names, _grouped(free_ports((nodes + agents) * len(names)), nodes + agents), strict=True))
        await regions.link(stack, {name: ports[name][nodes:] for name in names})
        for name in names:
            documents = [*values, *regions.seen_from(name)]
            for number, port in enumerate(ports[name]):
                is_agent = number >= nodes
                known = f"{name}-agent-{number - nodes}" if is_agent else f"{name}-{number}"
                snapshot = root / f"{known}.snapshot"
                await write_snapshot(snapshot, documents)
                child = ForkedChild(
                    known, "region-agent" if is_agent else "data-plane", log_path=root / f"{known}.log",
                    env=environment_of(regions, name, known, port, snapshot) | dict(settings or {}),
                )  # fmt: skip
                child.start()
                (regions.agent_processes if is_agent else regions.processes)[name].append(child)
                # not on the loop: what stops waits for its connections to the control plane, which is on it
                stack.push_async_callback(asyncio.to_thread, child.stop)
                client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
                clients = (regions.agent_clients if is_agent else regions.clients)[name]
                clients.append(await stack.enter_async_context(client))
        for name in names:
            for number in range(agents):
                await regions.agent_ready(name, number)
            for number in range(nodes):
                await regions.ready(name, number)
        await regions.proven(START_S)
        yield regions


def started_store(root: Path, name: str) -> StoreServer:
    store = StoreServer(
        root / f"{name}-store", port=free_ports(1)[0], password=secrets.token_urlsafe(16),
        log_path=root / f"{name}-store.log", name=f"Valkey of {name}",
    )  # fmt: skip
    store.prepare()
    store.child.start()
    wait_until_ready(store.child, store.is_ready, timeout_s=START_S)
    return store


def environment_of(regions: Regions, region: str, name: str, port: int, snapshot: Path) -> dict[str, str]:
    return {
        "TIDEGATE_NODE": name, "TIDEGATE_REGION": region, "TIDEGATE_PORT": str(port),
        "TIDEGATE_LOG_LEVEL": "warning", "TIDEGATE_REDIS_URL": regions.stores[region].url,
        "TIDEGATE_CONTROL_PLANE_URL": regions.control_plane.url, "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY,
        "TIDEGATE_REGION_CREDENTIAL": CREDENTIALS[region], "TIDEGATE_SNAPSHOT_FILE": str(snapshot),
        "TIDEGATE_DRAIN_S": "0", "TIDEGATE_TRUST": "network", "TIDEGATE_REDIS_DEADLINE_MS": str(PATIENT_MS),
    }  # fmt: skip


def _grouped(ports: Sequence[int], size: int) -> list[Sequence[int]]:
    return [ports[start : start + size] for start in range(0, len(ports), size)]


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False
