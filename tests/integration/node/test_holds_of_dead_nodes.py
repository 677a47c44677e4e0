"""Settlements that a node began and did not live to answer: the next try ends them, and nothing counts twice."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from data_plane.holds.redis_holds import RedisHoldStore
from data_plane.holds.signatures import HoldSigner
from data_plane.holds.tokens import Hold
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.store import RedisCounterStore
from testing.node import REGION_CREDENTIAL, node_client
from tests.integration.node.test_holds import ALL, KEY, config, remaining

REMEMBERED_MS = 60_000


@contextlib.asynccontextmanager
async def of_a_node(url: str) -> AsyncIterator[RedisHoldStore]:
    """What a node does to the store, step by step: a test stops where the node died."""
    store = RedisCounterStore(RedisSettings(url=url))
    await store.start()
    try:
        yield RedisHoldStore(store)
    finally:
        await store.close()


async def reserve(node, cost: int) -> tuple[str, Hold]:
    held = (await node.post("/v1/reservations", json={"api_key": KEY, "cost": cost})).json()
    return held["reservation"], HoldSigner(REGION_CREDENTIAL, tuple).verify(held["reservation"], "reservation")


async def settle(node, reservation: str, cost: int):
    response = await node.post("/v1/reservations/settle", json={"reservation": reservation, "cost": cost})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("algorithm", ALL)
async def test_a_settlement_that_was_noted_only_is_done_by_the_next_try(tmp_path, store_url, algorithm):
    limits = config(algorithm=algorithm)
    async with node_client(tmp_path, store_url, limits) as node, of_a_node(store_url) as died:
        for cost in (10, 30):
            left = await remaining(node)
            text, hold = await reserve(node, 20)
            assert await died.settle_once(hold, cost, REMEMBERED_MS) is None
            assert (await settle(node, text, cost))["repeated"] is False
            assert await remaining(node) == left - cost
            assert (await settle(node, text, cost))["repeated"] is True
            assert await remaining(node) == left - cost


@pytest.mark.parametrize("algorithm", ALL)
async def test_a_settlement_that_was_done_and_not_answered_counts_once(tmp_path, valkey_url, algorithm):
    limits = config(algorithm=algorithm)
    async with node_client(tmp_path, valkey_url, limits) as node, of_a_node(valkey_url) as died:
        for cost in (10, 30):
            left = await remaining(node)
            text, hold = await reserve(node, 20)
            await died.settle_once(hold, cost, REMEMBERED_MS)
            assert await died.replace(hold, cost, REMEMBERED_MS, logs_over=False) is True
            assert await died.replace(hold, cost, REMEMBERED_MS, logs_over=False) is False
            assert (await settle(node, text, cost))["repeated"] is True
            assert await remaining(node) == left - cost
