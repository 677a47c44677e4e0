"""An installation goes from an earlier version's wheel to this one's: its data stays, and decisions go on meanwhile.

Nothing was released yet, so the version before is a commit of this repository. The order is that of docs/upgrade.md.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.release.environments import ROOT, Environment
from tests.release.versions_side_by_side import START_S, Installation
from tidegate.stack.ports import LOOPBACK

BEFORE = "6fc12e2"
REGIONS = ("us-east", "eu-west")
DAY_S = 86_400
LIMIT, STRICT = 100_000, 50_000
PAUSE_S = 5.0


@pytest.fixture(scope="module")
def version_before(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel of the version before."""
    known = subprocess.run(["git", "cat-file", "-e", BEFORE], cwd=ROOT, capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"the history does not reach back to {BEFORE} (a shallow clone)")
    tree, wheels = tmp_path_factory.mktemp("before"), tmp_path_factory.mktemp("wheels")
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x"], cwd=tree, input=archive, check=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=tree, env=env, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    environment = Environment(tmp_path_factory.mktemp("version-before") / "environment")
    environment.install(str(wheel))
    return environment


class Load:
    """Decisions without end, at the nodes that are in ``ports``, as a gateway asks who was told of them.

    ``pauses`` are the seconds for which a strict limit could not be decided, each time that this began: an agent that
    starts lets its store refuse shares older than its own, and nodes of the version before have no notice of that.
    """

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.given = dict.fromkeys(("acme", "globex"), 0)
        self.trouble: list[str] = []
        self.pauses: list[float] = []
        self.ended = False
        self.client = httpx.AsyncClient(trust_env=False, timeout=10)
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        while not self.ended:
            for client in self.given:
                for region in REGIONS:
                    async with self._turn:
                        answer = await self._decided(region, client)
                    if answer.get("allowed") is True and not answer.get("degraded"):
                        self.given[client] += 1
                    else:
                        self.trouble.append(f"{region} at {self.ports[region]}, {client}: {answer}")
            await asyncio.sleep(0.02)

    async def _decided(self, region: str, client: str) -> dict[str, object]:
        """The answer, asked for again as its `retry_after` allows while the limit cannot be decided."""
        began = time.monotonic()
        answer = await self.ask(region, client)
        if answer.get("cause") == "cannot_decide" and client == "globex":
            while answer.get("cause") == "cannot_decide" and time.monotonic() - began < PAUSE_S:
                await asyncio.sleep(0.02)
                answer = await self.ask(region, client)
            self.pauses.append(time.monotonic() - began)
        return answer

    async def ask(self, region: str, client: str, cost: int = 1) -> dict[str, object]:
        try:
            url = f"http://{LOOPBACK}:{self.ports[region]}/v1/check"
            return dict((await self.client.post(url, json={"client": client, "cost": cost})).json())
        except httpx.TransportError as error:
            return {"error": repr(error)}

    async def move(self, region: str, port: int) -> None:
        """Ask another node of the region from now on; nothing is under way at the one before when this returns."""
        async with self._turn:
            self.ports[region] = port


class Admin:
    """The admin API of one replica."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=15"}
        self.client = httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30)

    async def put(self, path: str, body: dict[str, object], *, wait: bool = True) -> None:
        """PUT, and wait until every node enforces it."""
        answer = await self.client.put(path, json=body)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        if wait:
            assert answer.headers.get("preference-applied") == "wait", f"{path}: not every node enforces it"

    async def get(self, path: str) -> dict[str, list[dict[str, object]]]:
        answer = await self.client.get(path)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    async def used(self, client: str) -> int | None:
        """What both regions used of the client's one limit; ``None`` while one of them does not answer."""
        answer = await self.client.get(f"/v1/clients/{client}/limits")
        (limit,) = answer.json()["limits"]
        figures = [region["used"] for region in limit["regions"].values()]
        return None if None in figures else sum(figures)

    async def connected(self) -> set[str]:
        """Nodes and agents that are there."""
        return {str(node["node"]) for node in (await self.get("/v1/nodes"))["items"] if node["connected"]}


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while not await condition():
                await asyncio.sleep(0.1)
            return
    raise AssertionError(f"waited {START_S} s for {what}")


async def test_an_installation_is_upgraded_under_load(
    tmp_path: Path, version_before: Environment, installed: Environment
) -> None:
    for version, package in ((version_before, "contract"), (installed, "tidegate.contract")):
        place = version.run(version.program("python"), "-c", f"import {package}; print({package}.__file__)")
        assert Path(place.strip()).is_relative_to(version.directory)

    load, old, new = Load(), version_before, installed
    async with contextlib.AsyncExitStack() as stack:
        site = await stack.enter_async_context(Installation(tmp_path, REGIONS))
        await stack.enter_async_context(load.client)
        site.make_signing_key(old)
        site.migrate(old)
        old_plane, old_url = await site.control_plane(old, "old-control-plane")
        site.address.target = (LOOPBACK, int(old_url.rpartition(":")[2]))
        admin = Admin(old_url, site.token)
        await stack.enter_async_context(admin.client)
        for region in REGIONS:
            body: dict[str, object] = {"peer_url": site.peers[region].url, "credential": site.credentials[region]}
            await admin.put(f"/v1/regions/{region}", body, wait=False)
        old_of_region = {}
        for region in REGIONS:
            agent, agent_port = await site.of_region(old, region, f"{region}-old-agent", "region-agent")
            site.peers[region].target = (LOOPBACK, agent_port)
            node, load.ports[region] = await site.of_region(old, region, f"{region}-old", "data-plane")
            old_of_region[region] = (agent, node)

        shared = {"name": "daily", "algorithm": "fixed_window", "limit": LIMIT, "window_s": DAY_S, "mode": "shared"}
        await admin.put("/v1/plans/shared", {"limits": [shared]})
        await admin.put("/v1/plans/strict", {"limits": [{**shared, "limit": STRICT, "mode": "strict"}]})
        await admin.put("/v1/clients/acme", {"plan": "shared"})
        await admin.put("/v1/clients/globex", {"plan": "strict"})

        async def serves_strict() -> bool:
            answers = [await load.ask(region, "globex", cost=0) for region in REGIONS]
            return all(answer.get("allowed") is True for answer in answers)

        await until(serves_strict, "the strict limit to be served")
        asking = asyncio.create_task(load.run())
        stack.push_async_callback(asyncio.wait, [asking])
        stack.callback(asking.cancel)
        await until(lambda: _given(load, 20), "decisions of the version before")

        # the control plane: the schema, then replicas beside each other, then the old one goes
        site.migrate(new)
        assert (await admin.connected()) >= {f"{region}-old" for region in REGIONS}
        _, new_url = await site.control_plane(new, "new-control-plane")
        renewed = Admin(new_url, site.token)
        await stack.enter_async_context(renewed.client)
        await renewed.put("/v1/clients/written-by-the-new", {"plan": "shared"})
        await admin.put("/v1/clients/written-by-the-old", {"plan": "shared"})
        assert await admin.get("/v1/clients") == await renewed.get("/v1/clients")
        site.address.target = (LOOPBACK, int(new_url.rpartition(":")[2]))
        await asyncio.to_thread(old_plane.stop)
        names = {f"{region}-old{part}" for region in REGIONS for part in ("", "-agent")}
        await until(lambda: _all_connected(renewed, names), "old nodes and agents at the new control plane")
        await renewed.put("/v1/clients/pushed-to-old-nodes", {"plan": "shared"})

        # the regions, one by one: new processes beside the old ones, then these go
        for region in REGIONS:
            agent, node = old_of_region[region]
            _, agent_port = await site.of_region(new, region, f"{region}-new-agent", "region-agent")
            site.peers[region].target = (LOOPBACK, agent_port)
            _, port = await site.of_region(new, region, f"{region}-new", "data-plane")
            before = sum(load.given.values())
            await load.move(region, port)
            await until(lambda wanted=before + 20: _given(load, wanted), f"decisions of the new node of {region}")
            await asyncio.to_thread(node.stop)
            await asyncio.to_thread(agent.stop)
        names = {f"{region}-new{part}" for region in REGIONS for part in ("", "-agent")}
        await until(lambda: _all_connected(renewed, names), "new nodes and agents")
        await renewed.put("/v1/clients/pushed-to-new-nodes", {"plan": "shared"})
        after = sum(load.given.values())
        await until(lambda: _given(load, after + 20), "decisions after the upgrade")
        load.ended = True  # not cancelled: what is under way is counted, and is to be known here
        await asking

        assert load.trouble == []
        assert len(load.pauses) <= len(REGIONS), "one for each agent that started"
        assert min(load.given.values()) > 20

        async def agree() -> bool:
            left = [await load.ask(region, "acme", cost=0) for region in REGIONS]
            return [answer.get("remaining") for answer in left] == [LIMIT - load.given["acme"]] * len(REGIONS)

        await until(agree, "both regions to know all that was counted, by either version")
        clients = {str(item["client"]) for item in (await renewed.get("/v1/clients"))["items"]}
        assert clients == {
            "acme", "globex", "written-by-the-new", "written-by-the-old", "pushed-to-old-nodes", "pushed-to-new-nodes",
        }  # fmt: skip

        async def same_use() -> bool:
            seen.append(await renewed.used("globex"))
            return seen[-1] == load.given["globex"]

        seen: list[int | None] = []

        with contextlib.suppress(AssertionError):
            await until(same_use, "the regions to say what they used")
        assert seen[-1] == load.given["globex"]


async def _given(load: Load, wanted: int) -> bool:
    assert load.trouble == []
    return sum(load.given.values()) >= wanted


async def _all_connected(admin: Admin, names: set[str]) -> bool:
    return names <= await admin.connected()
