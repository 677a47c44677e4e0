"""Who has proved nothing counts as the address he calls from, at cost 1, in small batches (``trust="token"``)."""

import asyncio

import pytest

from testing.node import GATEWAY_TOKEN, key_of, node_client, rule
from tidegate.check import ask
from tidegate.contract.config import Client, Gateway, Plan
from tidegate.contract.credentials import secret_sha256
from tidegate_client import AsyncTidegate, Options

ANYBODY = Plan(plan="anonymous", limits=(rule(1, "anybody", 100, scope="ip"),))
CONFIG = [
    ANYBODY,
    Plan(plan="p", limits=(rule(2, "hourly", 10_000),)),
    Client(client="acme", plan="p"),
    key_of("acme", "tg_acme"),
    Gateway(gateway="edge", sha256=secret_sha256(GATEWAY_TOKEN)),
]
TOKEN = {"x-tidegate-token": GATEWAY_TOKEN}
VICTIM = "203.0.113.42"


@pytest.fixture(params=[True, False], ids=["fast", "asgi"])
async def node(tmp_path, valkey_url, request):
    async with node_client(tmp_path, valkey_url, CONFIG, lane=request.param, trust="token") as client:
        yield client


async def left(node, ip: str) -> int:
    return (await node.post("/v1/check", json={"ip": ip, "cost": 0}, headers=TOKEN)).json()["remaining"]


async def test_a_stranger_names_no_address(node):
    one = {"ip": VICTIM}
    refused = await node.post("/v1/check", json=one)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (403, "ip")
    batch = await node.post("/v1/check/batch", json={"checks": [one, {}]})
    assert [item.get("error", {}).get("status") for item in batch.json()["decisions"]] == [403, None]
    assert await left(node, VICTIM) == 100
    assert await left(node, "127.0.0.1") == 99


async def test_a_strangers_forwarded_for_is_not_believed(node):
    for number in range(20):
        answer = await node.get("/v1/authorize/x", headers={"X-Forwarded-For": f"198.51.100.{number}"})
        assert answer.status_code == 200
    assert await left(node, "198.51.100.1") == 100
    assert await left(node, "127.0.0.1") == 80
    told = {"X-Forwarded-For": VICTIM, **TOKEN}
    assert (await node.get("/v1/authorize/x", headers=told)).status_code == 200
    assert await left(node, VICTIM) == 99


async def test_invented_addresses_all_count_as_the_one_they_come_from(node):
    answers = [await node.post("/v1/check", json={}) for _ in range(101)]
    assert [answer.status_code for answer in answers] == [200] * 100 + [429]


@pytest.mark.parametrize(("count", "status"), [(10, 200), (11, 403), (1_000, 403), (1_001, 422)])
async def test_a_strangers_batch_is_small(node, count, status):
    body = {"checks": [{"api_key": "tg_acme"}] * count}
    assert (await node.post("/v1/check/batch", json=body)).status_code == status
    with_token = await node.post("/v1/check/batch", json=body, headers=TOKEN)
    assert with_token.status_code == (200 if count <= 1_000 else 422)


async def test_a_strangers_batch_is_not_read_beyond_what_a_small_one_needs(node):
    body = {"checks": [{"api_key": "tg_acme", "path": "/" + "a" * 8_000}] * 9}
    assert (await node.post("/v1/check/batch", json=body)).status_code == 403
    assert (await node.post("/v1/check/batch", json=body, headers=TOKEN)).status_code == 200


async def test_the_command_and_the_python_client_do_with_what_a_stranger_may(node):
    url = str(node.base_url)
    asked = {"ip": VICTIM, "method": "GET", "path": "/x"}
    assert (await asyncio.to_thread(ask, url, asked, token=None)).status == 403
    assert (await asyncio.to_thread(ask, url, asked, token=GATEWAY_TOKEN)).status == 200
    async with AsyncTidegate(Options(urls=(url,), timeout_s=10, on_failure="raise", remember_denials_s=0)) as limiter:
        decisions = await asyncio.gather(*(limiter.check(api_key="tg_acme") for _ in range(100)))
    assert sorted(one.remaining for one in decisions) == [*range(9_900, 10_000)]


async def test_a_long_batch_is_decided_in_order_and_lets_others_be_answered_in_between(node):
    checks = [{"api_key": "tg_acme", "cost": 1 + number % 3} for number in range(1_000)]
    checks[7] = {"no": "such member"}
    batch = asyncio.create_task(node.post("/v1/check/batch", json={"checks": checks}, headers=TOKEN))
    others = 0
    while not batch.done():
        assert (await node.post("/v1/check", json={"api_key": "tg_acme", "cost": 0})).status_code == 200
        others += 1
    decisions = batch.result().json()["decisions"]
    assert decisions[7]["error"]["status"] == 422
    remaining = [one["remaining"] for place, one in enumerate(decisions) if place != 7]
    costs = [1 + number % 3 for number in range(1_000) if number != 7]
    assert remaining == [10_000 - sum(costs[: place + 1]) for place in range(999)]
    assert [one["request_id"].rpartition("-")[2] for one in decisions if "request_id" in one][-1] == "999"
    assert others > 2
