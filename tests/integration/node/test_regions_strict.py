"""Strict limits over several regions with a real store each: rights move, and never make more than the limit."""

import asyncio
import contextlib
import time

import httpx
import pytest
import redis

from data_plane.config.strict_limits import moves_rights
from data_plane.node import Node
from data_plane.store.redis.topology import MARKER
from testing.agent import agent_beside, proven
from testing.node import (
    HOUR_US,
    document_of,
    key_of,
    node_client,
    put_in_force,
    rule,
    serving,
    settings_for,
    write_snapshot,
)
from testing.regions import NAMES, YOUNG, equal_shares, regions_running
from tidegate.contract.config import Ack, Client, Plan

THREE = NAMES[:3]


def strict(id, name, limit, names=NAMES[:2], **members):
    shares = members.pop("shares", None) or equal_shares(limit, names)
    return rule(id, name, limit, mode="strict", shares=shares, on_store_failure="closed", **{**YOUNG, **members})


async def drained(regions, region, until, **options):
    """Ask in one region until ``until`` units were given, or for too long."""
    given = 0
    async with asyncio.timeout(20):
        while given < until:
            given += await regions.allowed(region, **options)
    return given


async def test_a_region_uses_what_another_has_to_spare_and_never_more(tmp_path, start_store):
    async with regions_running(tmp_path, start_store, [strict(1, "exact", 100, algorithm="fixed_window")]) as regions:
        assert await drained(regions, "us-east", 100) == 100
        assert await regions.drain("us-east", 20) + await regions.drain("eu-west", 20) == 0
        status = await regions.agent_status("us-east")
        assert status["rights"]["received"] == {"eu-west": 50}
        assert (await regions.agent_status("eu-west"))["rights"]["given"] == {"us-east": 50}

        async def hold_nothing():
            held = [(await regions.agent_status(region))["rights"]["held"] for region in regions.names]
            return held == [{"exact": 0}] * 2

        await regions.until(hold_nothing)


def in_its_middle():
    """A window that began a while ago: early in a sliding one the rights of the window before count for more, and those
    that move are of little use.
    """
    windows_us = [hours * HOUR_US for hours in (1, 5, 7, 11, 13, 17)]
    return next(window_us for window_us in windows_us if 0.1 < time.time() * 1e6 % window_us / window_us < 0.8)


@pytest.mark.parametrize("algorithm", ["sliding_window", "sliding_log", "token_bucket", "leaky_bucket"])
async def test_rights_move_for_every_algorithm(tmp_path, start_store, algorithm):
    members = {"burst": 100} if "bucket" in algorithm else {"window_us": in_its_middle()}
    limits = [strict(1, "exact", 100, algorithm=algorithm, **members)]
    whole = 101 if algorithm == "leaky_bucket" else 100
    async with regions_running(tmp_path, start_store, limits) as regions:
        given = await drained(regions, "us-east", 52)
        given += await regions.drain("us-east", 60) + await regions.drain("eu-west", 60)
        assert given <= whole
        assert (await regions.agent_status("us-east"))["rights"]["received"]["eu-west"] > 0


async def test_nobody_says_a_word_while_rights_are_plentiful(tmp_path, start_store):
    limits = [strict(1, "exact", 1_000_000, algorithm="sliding_window")]
    async with regions_running(tmp_path, start_store, limits) as regions:
        assert await regions.drain("us-east", 100) == 100
        for region in regions.names:
            for agent in regions.agents[region]:
                assert not agent.peering.rights.tally.messages
                assert not agent.peering.rights.tally.questions
        assert (await regions.remaining("us-east"))["exact"] == 499_900
        assert (await regions.agent_status("us-east"))["exchange"]["cells_sent"] == 0, "nor of what was taken"


@pytest.mark.parametrize("algorithm", ["fixed_window", "token_bucket"])
async def test_costly_requests_get_the_rights_that_they_want(tmp_path, start_store, algorithm):
    """What is left of a share is less than a request costs, and enough for any round trip."""
    members = {"burst": 1_000} if "bucket" in algorithm else {}
    limits = [strict(1, "exact", 1_000, algorithm=algorithm, **members)]
    async with regions_running(tmp_path, start_store, limits) as regions:
        for cost, given in ((300, 1), (300, 2), (150, 3)):
            async with asyncio.timeout(20):
                while not await regions.allowed("us-east", cost):
                    await asyncio.sleep(0.02)
            assert (await regions.remaining("us-east"))["exact"] <= 1_000 - 300 * min(given, 2)
        assert not await regions.allowed("us-east", 300)


async def test_when_all_is_used_nobody_is_told_to_come_back_at_once(tmp_path, start_store):
    limits = [strict(1, "exact", 10, algorithm="fixed_window")]
    async with regions_running(tmp_path, start_store, limits) as regions:
        assert await drained(regions, "us-east", 10) == 10

        async def is_told_to_wait():
            return (await regions.check("us-east"))["retry_after_s"] > 5

        await regions.until(is_told_to_wait)
        questions = (await regions.agent_status("us-east"))["rights"]["asked"]
        assert await regions.drain("us-east", 50) == 0
        assert (await regions.check("us-east"))["retry_after_s"] > 5
        assert (await regions.agent_status("us-east"))["rights"]["asked"] == questions, "nothing is left to ask for"


async def test_a_used_up_bucket_says_when_the_next_token_comes_and_is_seldom_asked_for(tmp_path, start_store):
    # a token comes each 10 minutes, so that none is near however long a busy machine takes to get there
    limits = [strict(1, "exact", 60, algorithm="token_bucket", burst=60, window_us=10 * HOUR_US)]
    async with regions_running(tmp_path, start_store, limits) as regions:
        async with asyncio.timeout(60):
            while await regions.allowed("eu-west"):
                pass

            async def says_so():
                return (await regions.check("us-east"))["retry_after_s"] or 0.0

            while await says_so() < 20:
                await asyncio.sleep(0.02)

        async def asked_in_a_while():
            before = sum((await regions.agent_status("us-east"))["rights"]["asked"].values())
            begun, told = time.monotonic(), []
            while time.monotonic() < begun + 4:
                told.append(await says_so())
                await asyncio.sleep(0.02)
            return sum((await regions.agent_status("us-east"))["rights"]["asked"].values()) - before, max(told)

        # first the peer lends its capacity, part by part; then it is asked after 1, 2, 4, ... seconds
        async with asyncio.timeout(60):
            while (found := await asked_in_a_while())[0] > 3:
                pass
        assert found[1] > 20


async def test_a_cut_takes_what_a_region_may_ask_for_and_nothing_else(tmp_path, start_store):
    async with regions_running(
        tmp_path, start_store, [strict(1, "exact", 90, THREE, algorithm="fixed_window")], THREE
    ) as regions:
        await regions.cut()
        assert [await regions.drain(region, 40) for region in THREE] == [30, 30, 30]
        denied = await regions.check("us-east")
        assert not denied["allowed"]
        assert 0 < denied["retry_after_s"] <= 3600
        await regions.heal()
        await asyncio.sleep(0.5)
        assert [await regions.drain(region, 5) for region in THREE] == [0, 0, 0]


async def test_what_another_limit_denies_takes_no_rights_and_peeks_take_none(tmp_path, start_store):
    limits = [
        strict(1, "exact", 100, algorithm="fixed_window"),
        rule(2, "small", 3, mode="regional", algorithm="fixed_window"),
    ]
    async with regions_running(tmp_path, start_store, limits) as regions:
        assert await regions.drain("us-east", 10) == 3
        assert await regions.remaining("us-east") == {"exact": 47, "small": 0}
        peek = await regions.check("us-east", 0)
        assert peek["allowed"]
        too_much = await regions.check("us-east", 101)
        assert too_much["retry_after_s"] is None


async def test_a_lost_store_owns_nothing_until_its_window_is_over(tmp_path, start_store):
    limits = [strict(1, "exact", 100, algorithm="fixed_window", since_us=1, window_us=4_000_000)]
    async with regions_running(tmp_path, start_store, limits) as regions:

        async def owns():
            return (await regions.remaining("eu-west"))["exact"] == 50

        # limits older than the stores: nothing may be spent in the window that the stores were born in
        waited_s = await regions.until(owns, 10)
        assert waited_s > 0.5
        node = regions.nodes["eu-west"][0]
        before = node.region_view.joined.incarnation
        await regions.restart_store("eu-west")

        async def is_new():
            return node.region_view.joined.incarnation != before

        await regions.until(is_new)
        # nothing is left, or, until an agent has begun the store's new epoch, nobody knows what is
        assert (await regions.remaining("eu-west"))["exact"] in {0, None}
        await regions.until(owns, 10)


@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket"])
async def test_a_bucket_too_large_and_slow_to_lend_of_begins_empty_in_a_store_that_lost_it(
    tmp_path, start_store, algorithm
):
    """Its parts would not be exact: each region keeps to its own, and may not have it twice."""
    slow = strict(1, "exact", 10_007, algorithm=algorithm, window_us=86_400_000_000, since_us=1)
    young = strict(2, "young", 10_007, algorithm=algorithm, window_us=86_400_000_000, since_us=2**51)
    assert not moves_rights(slow)
    async with regions_running(tmp_path, start_store, [slow, young]) as regions:
        assert not await regions.allowed("eu-west", 1_000), "a limit older than the store, which was born a moment ago"
        left = await regions.remaining("eu-west")
        assert left["exact"] < 100
        assert left["young"] >= 5_000
        status = await regions.agent_status("eu-west")
        assert status["rights"]["asked"] == status["rights"]["held"] == {}
        agent = regions.agents["eu-west"][0]
        with redis.Redis.from_url(regions.stores["eu-west"].url) as store:
            store.flushall()
        assert not await regions.allowed("eu-west", 0), "nobody has joined this life yet"

        async def is_new():
            return agent.peering.joined.new_epochs == 1

        async def is_served():
            return (await regions.remaining("eu-west"))["exact"] is not None

        await regions.until(is_new)
        await regions.until(is_served)
        assert (await regions.remaining("eu-west"))["exact"] < 100


@pytest.mark.parametrize("young", [True, False])
async def test_a_store_that_was_flushed_is_joined_again_without_a_new_connection(tmp_path, start_store, young):
    members = {} if young else {"since_us": 1, "window_us": 4_000_000}
    limits = [strict(1, "exact", 100, algorithm="fixed_window", **members)]
    async with regions_running(tmp_path, start_store, limits) as regions:
        await regions.until(lambda: regions.allowed("eu-west"))
        node, agent = regions.nodes["eu-west"][0], regions.agents["eu-west"][0]
        connects = node.store.stats.connects
        with redis.Redis.from_url(regions.stores["eu-west"].url) as store:
            store.flushall()
        assert not await regions.allowed("eu-west")

        async def has_begun():
            epoch, joined = agent.peering.epochs.epoch, agent.peering.joined
            is_new = joined.new_epochs == 1 and epoch is not None and epoch.incarnation == joined.incarnation
            return is_new and not epoch.pending

        await regions.until(has_begun)
        if not young:
            known = None
            async with asyncio.timeout(10):
                while known is None:  # the agent has begun the epoch; the node hears of it a moment later
                    known = (await regions.remaining("eu-west"))["exact"]
            assert known == 0
        await regions.until(lambda: regions.allowed("eu-west"))
        assert node.store.stats.connects == connects
        assert (await regions.status("eu-west"))["rights"]["refused"]["marker"] > 0


async def test_a_node_that_has_not_heard_of_newer_shares_is_refused_by_the_store(tmp_path, valkey_url):
    limits = [
        rule(1, "exact", 100, mode="strict", algorithm="fixed_window", on_store_failure="closed"),
        rule(2, "local", 5, algorithm="fixed_window"),
    ]
    config = [Plan(plan="p", limits=tuple(limits)), Client(client="acme", plan="p"), key_of("acme", "tg_acme")]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(agent_beside(tmp_path, valkey_url, config, revision=2))
        answers = []
        for revision in (2, 1):
            snapshot = tmp_path / str(revision)
            await write_snapshot(snapshot, config, revision)
            with redis.Redis.from_url(valkey_url) as store:
                store.delete("tg:snapshot")  # else the node would start from the newer one that the agent left there
            node = Node(settings_for(snapshot, valkey_url, node=f"n{revision}"))
            url = await stack.enter_async_context(serving(node))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False))
            if revision == 2:
                await proven(client)
            answers.append((await client.post("/v1/check", json={"api_key": "tg_acme", "explain": True})).json())
        newer, older = answers
        assert newer["allowed"]
        assert (older["allowed"], older["violated-policies"], older["retry_after_s"]) == (False, ["exact"], 1)
        rights = (await client.get("/v1/status")).json()["rights"]
        assert (rights["refused"], rights["proven"]) == ({"marker": 1}, False)
        # a newer revision that changes no limit is news of the same shares: it decides again
        index = node.decider.index.with_changes([document_of(Client(client="other", plan="p"))])
        put_in_force(node, index, 2)
        async with asyncio.timeout(10):
            while not (await client.post("/v1/check", json={"api_key": "tg_acme"})).json()["allowed"]:
                await asyncio.sleep(0.02)


async def test_nodes_decide_beside_a_canary_that_tries_other_figures_under_their_number(tmp_path, valkey_url):
    def config_of(limit):
        exact = rule(1, "exact", limit, mode="strict", algorithm="fixed_window", on_store_failure="closed")
        return [Plan(plan="p", limits=(exact,)), Client(client="acme", plan="p"), key_of("acme", "tg_acme")]

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(agent_beside(tmp_path, valkey_url, config_of(100), revision=2))
        for number, limit in ((1, 120), (2, 100), (1, 120)):
            node = await stack.enter_async_context(
                node_client(tmp_path, valkey_url, config_of(limit), revision=2, node=f"n{number}")
            )
            await proven(node)
            assert (await node.post("/v1/check", json={"api_key": "tg_acme"})).status_code == 200


async def test_a_cut_is_confirmed_with_the_window_from_which_it_holds(tmp_path, valkey_url):
    exact = rule(1, "exact", 100, mode="strict", algorithm="fixed_window", shares={"us-east": 60, "eu-west": 40})
    async with agent_beside(tmp_path, valkey_url, [Plan(plan="p", limits=(exact,))], revision=5) as (agent, _):
        epochs = agent.peering.epochs
        told = await epochs.confirmed(Ack(node="a1", revision=5, digest="0" * 64))
        now_us = time.time_ns() // 1_000
        assert told.effective.keys() == {1}
        assert 0 < told.effective[1] - now_us <= HOUR_US + 1_000_000
        assert told.effective[1] % HOUR_US == 0
        again = await epochs.confirmed(Ack(node="a1", revision=6, digest="0" * 64))
        assert again.effective == {}, "nothing changed since"
        await epochs.renew()
        assert epochs.epoch.revision == 5


async def test_a_cut_that_the_control_plane_could_not_be_told_of_is_said_when_it_is_back(tmp_path, valkey_url):
    exact = rule(1, "exact", 100, mode="strict", algorithm="fixed_window", shares={"us-east": 60, "eu-west": 40})
    values = [Plan(plan="p", limits=(exact,))]
    async with agent_beside(tmp_path, valkey_url, values, revision=5) as (agent, control_plane):
        control_plane.away = True
        control_plane.garbled = 1  # when it is back: the agent dials again
        control_plane.move()
        agent.peering.epochs.unconfirmed_ack = Ack(node="a1", revision=5, digest="0" * 64)  # the store was away before
        unsent = agent.configuration.stream.unsent
        async with asyncio.timeout(20):
            while not unsent:
                await asyncio.sleep(0.01)
            assert control_plane.acks == []
            control_plane.away = False
            while unsent:
                await asyncio.sleep(0.01)
        assert [(ack.revision, ack.effective.keys()) for ack in control_plane.acks] == [(5, {1})]
        # and the store is still looked after
        await agent.store.execute("FLUSHALL")
        async with asyncio.timeout(10):
            while await agent.store.execute("GET", MARKER) is None:
                await asyncio.sleep(0.01)
