"""Strict limits with an overdraft, over two regions with a real store each."""

import asyncio
import struct
import time

import redis

from tests.servers.node import rule
from tests.servers.regions import YOUNG, regions_running

EQUAL = {"us-east": 50, "eu-west": 50}


def overdrawn(window_s):
    """100 a window, of which each region owns 50 and may take 10 more."""
    return rule(
        1, "exact", 100, mode="strict", algorithm="fixed_window", shares=EQUAL, overdraft_percent=20,
        on_store_failure="closed", window_us=window_s * 1_000_000, **YOUNG,
    )  # fmt: skip


async def hear_each_other(regions):
    states = [(await regions.status(region))["peers"] for region in regions.names]
    return all(not peer["silent"] for peers in states for peer in peers.values())


async def asked_at_once(regions, count):
    """Whether each of so many requests for 10 units was allowed; no time passes from the first to the last."""
    checks = [{"api_key": "tg_acme", "cost": 10}] * count
    answer = await regions.clients["us-east"][0].post("/v1/check/batch", json={"checks": checks})
    return [result["allowed"] for result in answer.json()["decisions"]]


async def test_out_of_rights_a_region_overdraws_while_it_hears_its_peers_and_repays_from_the_next_window(
    tmp_path, start_store
):
    """Nobody can be asked in time: a question and its answer take 0.9 s, which is more than is left of the window."""
    window_s = 3
    async with regions_running(tmp_path, start_store, [overdrawn(window_s)]) as regions:
        regions.delay(0.45)

        async def ends_soon():
            return window_s - 0.65 < time.time() % window_s < window_s - 0.5 and await hear_each_other(regions)

        await regions.until(ends_soon)
        given = await asked_at_once(regions, 8)
        assert given == [True] * 6 + [False] * 2
        assert (await regions.status("us-east"))["rights"]["overdrawn"] == {"exact": 10}
        assert (await regions.remaining("us-east"))["exact"] == 0
        window = time.time() // window_s

        async def is_next_window():
            return time.time() // window_s > window

        await regions.until(is_next_window)
        assert (await regions.remaining("us-east"))["exact"] == 40

        await regions.cut()

        async def is_silent():
            return (await regions.status("us-east"))["peers"]["eu-west"]["silent"]

        await regions.until(is_silent)
        window = time.time() // window_s
        await regions.until(is_next_window)
        given = await asked_at_once(regions, 8)
        assert given == [True] * 5 + [False] * 3, "who does not hear the others takes what it owns"


async def test_what_is_given_in_the_same_window_repays_and_the_operator_sees_it(tmp_path, start_store):
    async with regions_running(tmp_path, start_store, [overdrawn(3600)]) as regions:
        regions.delay(0.45)
        await regions.until(lambda: hear_each_other(regions))
        given = await asked_at_once(regions, 8)
        assert given == [True] * 6 + [False] * 2

        async def is_repaid():
            return (await regions.status("us-east"))["rights"]["repaid"] == {"exact": 10}

        await regions.until(is_repaid)
        assert (await regions.remaining("us-east"))["exact"] == 15, "half of what the other owned, less the overdraft"
        metrics = (await regions.clients["us-east"][0].get("/metrics")).text
        assert 'tidegate_rights_overdrawn_units_total{limit="exact"} 10.0' in metrics
        assert 'tidegate_rights_repaid_units_total{limit="exact"} 10.0' in metrics


async def test_nobody_overdraws_beyond_what_all_took_as_told(tmp_path, start_store):
    async with regions_running(tmp_path, start_store, [overdrawn(3600)]) as regions:
        await regions.until(lambda: hear_each_other(regions))
        given = 0
        async with asyncio.timeout(20):
            while given < 100:
                given += await regions.allowed("eu-west")
        with redis.Redis.from_url(regions.stores["us-east"].url) as store:

            async def is_told():
                states = [store.get(key) for key in store.keys("{acme}*") if not key.endswith(b"!")]
                return [struct.unpack_from("<Q", state, 76)[0] % 2**48 for state in states] == [100]

            await regions.until(is_told)
        assert await regions.drain("us-east", 20) <= 10, "what it still owns, where the other overdrew"
        assert (await regions.status("us-east"))["rights"]["overdrawn"] == {}
