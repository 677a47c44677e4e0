"""The order of docs/upgrade.md for the region agent, from the last version without one: nobody becomes unreachable."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from testing.node import HOUR_US, key_of, rule, write_snapshot
from testing.region_processes import START_S, RegionProcesses, environment_of, started_store
from testing.regions import NAMES, YOUNG, equal_shares
from tidegate.contract.config import Client, Plan
from tidegate.stack.child import Child
from tidegate.stack.ports import free_ports

BEFORE = "1f2deb2"
ROOT = Path(__file__).parents[2]
TWO = NAMES[:2]
LIMITS = (
    # an hour may end meanwhile, and its counts with it
    rule(1, "shared", 100_000, mode="shared", algorithm="fixed_window", window_us=1_000 * HOUR_US),
    rule(2, "exact", 100_000, mode="strict", algorithm="fixed_window", shares=equal_shares(100_000, TWO), **YOUNG),
)
CONFIG = [Plan(plan="p", limits=LIMITS), Client(client="acme", plan="p"), key_of("acme", "tg_acme")]


@pytest.fixture(scope="module")
def version_before(tmp_path_factory):
    """The tree of the version before, from the repository's own history."""
    known = subprocess.run(["git", "cat-file", "-e", BEFORE], cwd=ROOT, capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"the history does not reach back to {BEFORE}")
    tree = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x"], cwd=tree, input=archive, check=True)
    return tree


class Upgrade(RegionProcesses):
    """``seen`` are peers that a node took for unreachable while ``watching``; ``denied`` counts what did not pass."""

    def __init__(self, root: Path) -> None:
        super().__init__(TWO)
        self.root = root
        self.seen: list[tuple[str, str]] = []
        self.given = self.denied = 0
        self.is_over = False

    async def start(self, region: str, name: str, command: str, port: int, tree: Path = ROOT) -> Child:
        """A process of the version in ``tree``."""
        snapshot = self.root / f"{name}.snapshot"
        await write_snapshot(snapshot, [*CONFIG, *self.seen_from(region)])
        child = Child(
            name, [sys.executable, "-m", "tidegate", command], log_path=self.root / f"{name}.log", directory=tree,
            env=environment_of(self, region, name, port, snapshot) | {"PYTHONPATH": str(tree)},
        )  # fmt: skip
        child.start()
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        said = None
        try:
            async with asyncio.timeout(START_S):
                while said is None or said.status_code != 200:
                    assert child.exit_code() is None, child.log_tail()
                    with contextlib.suppress(httpx.TransportError):
                        said = await client.get("/readyz")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{name}: {said and said.text}\n{child.log_tail()}") from None
        (self.agent_clients if command == "region-agent" else self.clients)[region].append(client)
        return child

    async def close(self) -> None:
        """Close every client."""
        for name in TWO:
            for client in (*self.clients[name], *self.agent_clients[name]):
                await client.aclose()

    async def watching(self) -> None:
        """Ask and look at the last node of each region that was started, until ``is_over``.

        It ends between two questions: one that is cancelled may be counted in the store and not here.
        """
        while not self.is_over:
            for name in TWO:
                with contextlib.suppress(httpx.TransportError):
                    allowed = (await self.check(name, node=-1))["allowed"]
                    self.given, self.denied = self.given + allowed, self.denied + (not allowed)
                    peers = (await self.status(name, node=-1))["peers"]
                    self.seen += [(name, peer) for peer, state in peers.items() if state["silent"]]
            await asyncio.sleep(0.05)


async def test_a_region_after_the_other_gets_agents_and_nobody_is_unreachable(tmp_path, version_before):
    upgrade = Upgrade(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(upgrade.close)
        await stack.enter_async_context(upgrade.control_plane.running())
        ports = dict(zip(TWO, [(one,) for one in free_ports(2)], strict=True))
        await upgrade.link(stack, ports)
        old: dict[str, Child] = {}
        for name in TWO:
            upgrade.stores[name] = started_store(tmp_path, name)
            stack.callback(upgrade.stores[name].child.stop)
        for name in TWO:
            old[name] = await upgrade.start(name, f"{name}-old", "data-plane", ports[name][0], version_before)
            stack.push_async_callback(asyncio.to_thread, old[name].stop)
        await upgrade.heard()
        watching = asyncio.create_task(upgrade.watching())
        try:
            for name in TWO:
                agent_port, node_port = free_ports(2)
                agent = await upgrade.start(name, f"{name}-agent", "region-agent", agent_port)
                stack.push_async_callback(asyncio.to_thread, agent.stop)
                for (to, _), link in upgrade.links.items():
                    if to == name:
                        link.target = ("127.0.0.1", agent_port)  # the region's peer_url
                await asyncio.sleep(1)
                node = await upgrade.start(name, f"{name}-new", "data-plane", node_port)
                stack.push_async_callback(asyncio.to_thread, node.stop)
                await upgrade.until(lambda name=name: _is_proven(upgrade, name), START_S)
                await asyncio.to_thread(old[name].stop)
                await asyncio.sleep(3)  # as long as it takes to be noticed
        finally:
            upgrade.is_over = True
            await watching
        assert upgrade.given > 50
        assert upgrade.seen == []

        async def agree() -> bool:
            left = [(await upgrade.remaining(name, node=-1))["shared"] for name in TWO]
            return left[0] == left[1] == 100_000 - upgrade.given

        await upgrade.until(agree, START_S)


async def _is_proven(upgrade: Upgrade, region: str) -> bool:
    return bool((await upgrade.status(region, node=-1))["rights"]["proven"])
