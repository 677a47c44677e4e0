"""Strict limits are served by proven shares alone: nodes and agents that missed a move, beside stores that forget."""

import asyncio
import contextlib

import httpx
import pytest
import redis

from data_plane.agent import Agent
from data_plane.node import Node
from data_plane.region_view import PROOF_WAIT_S
from data_plane.store.redis.topology import MARKER
from data_plane.store.strict_packing import decode_marker
from testing.agent import proven
from testing.node import agent_settings_for, key_of, rule, serving, settings_for, write_snapshot
from testing.played import PlayedControlPlane
from tidegate.contract.config import Client, Plan

BEFORE, AFTER = {"us-east": 60, "eu-west": 40}, {"us-east": 20, "eu-west": 80}


def config(shares):
    exact = rule(
        1, "exact", 100, mode="strict", algorithm="fixed_window", on_store_failure="closed", shares=shares
    )  # fmt: skip
    return [Plan(plan="p", limits=(exact,)), Client(client="acme", plan="p"), key_of("acme", "tg_acme")]


class Region:
    """Nodes and agents of one region on one store, each from a snapshot of its own."""

    def __init__(self, tmp_path, store_url, control_plane, stack):
        self._tmp_path, self.store_url, self._stack = tmp_path, store_url, stack
        self.control_plane = control_plane

    def _known(self, name):
        return {"node": name, "control_plane_url": self.control_plane.url}

    async def agent(self, name, shares, revision, stack=None, clients=()):
        await write_snapshot(self._tmp_path / name, [*config(shares), *clients], revision)
        agent = Agent(agent_settings_for(self._tmp_path / name, self.store_url, **self._known(name)))
        await (stack or self._stack).enter_async_context(serving(agent))
        return agent

    async def node(self, name, shares, revision):
        await write_snapshot(self._tmp_path / name, config(shares), revision)
        node = Node(settings_for(self._tmp_path / name, self.store_url, **self._known(name)))
        url = await self._stack.enter_async_context(serving(node))
        return await self._stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False))

    def flush(self):
        with redis.Redis.from_url(self.store_url) as store:
            store.flushall()


@pytest.fixture
async def region(tmp_path, valkey_url):
    async with PlayedControlPlane().running() as control_plane, contextlib.AsyncExitStack() as stack:
        yield Region(tmp_path, valkey_url, control_plane, stack)


async def allowed(node):
    return (await node.post("/v1/check", json={"api_key": "tg_acme"})).status_code == 200


async def drained(node, until_nothing_for_s=2.0):
    """Ask until nothing has passed for so long; how many passed."""
    loop = asyncio.get_running_loop()
    given, last = 0, loop.time()
    while loop.time() < last + until_nothing_for_s:
        if await allowed(node):
            given, last = given + 1, loop.time()
    return given


async def readiness(node):
    """What ``/readyz`` misses; ``None`` once the node is ready."""
    return (await node.get("/readyz")).json().get("missing")


async def is_proven(agent, seconds=10):
    async with asyncio.timeout(seconds):
        while not agent.status()["rights"]["proven"]:
            await asyncio.sleep(0.01)


async def test_a_node_that_missed_a_move_begins_no_epoch_in_an_emptied_store(region):
    await is_proven(await region.agent("a1", BEFORE, 1))
    cut_off, here = await region.node("old", BEFORE, 1), await region.node("new", BEFORE, 1)
    for node in (cut_off, here):
        await proven(node)
    region.control_plane.cut_off.add("old")
    region.control_plane.move()
    region.control_plane.publish("us-east", config(AFTER), 2)
    async with asyncio.timeout(10):
        while not any(ack.effective for ack in region.control_plane.acks):
            await asyncio.sleep(0.01)
    region.flush()
    assert await drained(cut_off) == 0
    assert await drained(here) == 20


async def test_an_agent_that_missed_a_move_begins_no_epoch_until_the_control_plane_is_heard(region):
    region.control_plane.publish("us-east", config(AFTER), 2)
    async with contextlib.AsyncExitStack() as up_to_date:
        await is_proven(await region.agent("a1", AFTER, 2, up_to_date))
    region.control_plane.cut_off |= {"a2", "old"}
    await region.agent("a2", BEFORE, 1)
    node = await region.node("old", BEFORE, 1)
    region.flush()  # whoever knew better is gone, and so is what the store knew
    assert await drained(node) == 0
    region.control_plane.cut_off.clear()
    async with asyncio.timeout(20):  # whoever was cut off dials again within ten seconds
        while not await allowed(node):
            await asyncio.sleep(0.05)
    assert 1 + await drained(node) == 20


async def test_nodes_that_return_without_the_control_plane_serve_no_share_that_may_be_another_s_by_now(region):
    async with contextlib.AsyncExitStack() as before:
        await is_proven(await region.agent("a1", BEFORE, 1, before))
    # the region is stopped; its share is given to others, its store has forgotten nothing
    region.control_plane.publish("us-east", config({"us-east": 0, "eu-west": 100}), 2)
    region.control_plane.away = True
    agent, node = await region.agent("a1", BEFORE, 1), await region.node("n1", BEFORE, 1)
    assert await drained(node) == 0
    status = (await node.get("/v1/status")).json()
    assert status["rights"]["refused"]["marker"] > 0
    region.control_plane.away = False
    await is_proven(agent, 20)
    await proven(node)
    assert await drained(node) == 0, "the region owns nothing now"
    region.control_plane.publish("us-east", config(AFTER), 3)
    async with asyncio.timeout(20):
        while not await allowed(node):
            await asyncio.sleep(0.05)


async def test_a_node_starts_while_the_control_plane_is_away_beside_an_agent_that_has_proven_its_shares(region):
    await is_proven(await region.agent("a1", BEFORE, 1))
    region.control_plane.away = True
    region.control_plane.move()
    node = await region.node("n1", BEFORE, 1)
    await proven(node)
    assert await allowed(node)
    # and so does an agent beside it
    await is_proven(await region.agent("a2", BEFORE, 1))


@pytest.mark.parametrize("alone", [True, False], ids=["a first agent", "a second agent"])
async def test_an_agent_that_starts_with_a_newer_name_for_the_same_shares_has_nobody_denied(region, alone):
    region.control_plane.publish("us-east", config(BEFORE), 1)
    async with contextlib.AsyncExitStack() as first:
        await is_proven(await region.agent("a1", BEFORE, 1, first))
        node = await region.node("n1", BEFORE, 1)
        await proven(node)
        another = Client(client="another", plan="p")
        region.control_plane.publish("us-east", [*config(BEFORE), another], 2)
        async with asyncio.timeout(10):
            while (await node.get("/v1/status")).json()["applied_revision"] != 2:
                await asyncio.sleep(0.01)
        if alone:
            await first.aclose()
        proving = asyncio.create_task(is_proven(await region.agent("a2", BEFORE, 2, clients=[another])))
        answers = [(await node.post("/v1/check", json={"api_key": "tg_acme", "cost": 0})).status_code]
        while not proving.done():
            answers.append((await node.post("/v1/check", json={"api_key": "tg_acme", "cost": 0})).status_code)
        await proving
    assert set(answers) == {200}
    status = (await node.get("/v1/status")).json()
    assert status["rights"]["refused"]["marker"] == 0
    with redis.Redis.from_url(region.store_url) as store:
        assert decode_marker(store.get(MARKER)).revision == 2


async def test_a_node_is_not_ready_until_its_shares_are_proven(region):
    node = await region.node("n1", BEFORE, 1)
    assert await readiness(node) == ["shares"]
    await region.agent("a1", BEFORE, 1)
    async with asyncio.timeout(PROOF_WAIT_S):
        while await readiness(node) is not None:
            await asyncio.sleep(0.01)
    assert (await node.get("/v1/status")).json()["rights"]["proven"]


async def test_a_node_whose_shares_nobody_proves_is_ready_after_a_while(region, monkeypatch):
    monkeypatch.setattr("data_plane.region_view.PROOF_WAIT_S", 1.0)
    began_s = asyncio.get_running_loop().time()
    node = await region.node("n1", BEFORE, 1)
    async with asyncio.timeout(10):
        while await readiness(node) is not None:
            await asyncio.sleep(0.01)
    assert asyncio.get_running_loop().time() >= began_s + 1.0
    assert not (await node.get("/v1/status")).json()["rights"]["proven"]
