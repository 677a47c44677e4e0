"""What a node answers while its store is away, and what becomes of it when the store is back."""

import asyncio

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from data_plane.node import Node
from data_plane.store.ports import StoreUnavailableError
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
from tidegate.contract.config import Client, Endpoint, Plan
from tidegate.contract.load import Backend, Capacity
from tidegate.stack.child import wait_until_ready

HOURLY = {"algorithm": "fixed_window"}
CONFIG = [
    Plan(plan="local", limits=(rule(1, "hourly", 10, **HOURLY), rule(2, "bucket", 20, algorithm="token_bucket"))),
    Plan(plan="open", limits=(rule(3, "hourly", 10, on_store_failure="open", **HOURLY),)),
    Plan(plan="closed", limits=(rule(4, "hourly", 10, on_store_failure="closed", **HOURLY),)),
    *(Client(client=plan, plan=plan) for plan in ("local", "open", "closed")),
    *(key_of(plan, f"tg_{plan}") for plan in ("local", "open", "closed")),
]


@pytest.fixture
def store(start_store):
    server = start_store(durable=True)
    yield server
    server.child.stop()


async def ask(client, who, **members):
    response = await client.post("/v1/check", json={"api_key": f"tg_{who}", **members})
    assert response.status_code in {200, 429}
    return response.json()


async def until(condition):
    async with asyncio.timeout(15):
        while not (found := await condition()):
            await asyncio.sleep(0.02)  # between two looks
        return found


async def bring_back(store):
    def start():
        store.child.start()
        wait_until_ready(store.child, store.is_ready, timeout_s=10)

    start()


async def test_each_limit_follows_its_own_policy_and_every_answer_says_so(tmp_path, store):
    async with node_client(tmp_path, store.url, CONFIG) as client:
        assert (await ask(client, "local"))["degraded"] is False
        store.child.kill()
        await until(lambda: _is(client, degraded=True))
        assert [(await ask(client, "open"))["allowed"] for _ in range(15)] == [True] * 15
        closed = await ask(client, "closed")
        assert (closed["allowed"], closed["degraded"], closed["violated-policies"]) == (False, True, ["hourly"])
        assert (closed["cause"], closed["remaining"]) == ("cannot_decide", None)
        assert closed["message"] == "Limit 'hourly' of 10 per 3600 s cannot be decided now."
        headers = (await client.post("/v1/check", json={"api_key": "tg_closed"})).headers
        assert "retry-after" in headers
        assert not {"ratelimit", "x-ratelimit-remaining"} & set(headers), "nobody knows what is left"
        assert (await client.get("/readyz")).json() == {"ready": True, "revision": 1, "degraded": True, "agents": 0}
        metrics = (await client.get("/metrics")).text
        assert "rate_limit_degraded_total" in metrics
        assert "tidegate_store_usable 0.0" in metrics


async def test_locally_no_more_passes_than_the_nodes_part(tmp_path, store):
    async with node_client(tmp_path, store.url, CONFIG) as client:
        await ask(client, "local")
        store.child.kill()
        await until(lambda: _is(client, degraded=True))
        answers = [await ask(client, "local") for _ in range(15)]
        assert sum(answer["allowed"] for answer in answers) == 10
        assert answers[-1]["violated-policies"] == ["hourly"]


async def test_what_was_admitted_without_the_store_is_charged_when_it_is_back(tmp_path, store):
    async with node_client(tmp_path, store.url, CONFIG) as client:
        await ask(client, "local", cost=3)
        store.child.kill()
        await until(lambda: _is(client, degraded=True))
        assert (await ask(client, "local", cost=4))["degraded"]
        await bring_back(store)
        back = await until(lambda: _charged(client))
        assert {limit["policy"]: limit["remaining"] for limit in back["limits"]} == {"hourly": 3, "bucket": 13}


async def test_what_was_admitted_of_a_strict_limit_is_charged_although_shares_changed_meanwhile(tmp_path, store):
    limit = rule(5, "hourly", 10, mode="strict", **HOURLY, on_store_failure="local")
    config = [Plan(plan="local", limits=(limit,)), Client(client="local", plan="local"), key_of("local", "tg_local")]
    await write_snapshot(tmp_path / "snapshot", config)
    node = Node(settings_for(tmp_path / "snapshot", store.url))
    async with (
        agent_beside(tmp_path, store.url, config),
        serving(node) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        await proven(client)
        await ask(client, "local")
        store.child.kill()
        await until(lambda: _is(client, degraded=True))
        assert (await ask(client, "local", cost=4))["degraded"]
        more = document_of(
            Plan(plan="local", limits=(msgspec.structs.replace(limit, limit=20, shares={"us-east": 20}),))
        )
        index = node.decider.index.with_changes([more])
        put_in_force(node, index, 2)
        await bring_back(store)

        async def charged():
            await ask(client, "local", cost=0)  # the store is tried again by a decision
            return node.settlement.charged == 4

        async def left():
            return (await ask(client, "local", cost=0, explain=True))["limits"][0]["remaining"] == 16

        await until(charged)
        await until(left)  # once an agent has begun the epoch of the store, which came back empty


def backend_of(units):
    """A backend that takes so many units an hour."""
    return Backend(backend="b", capacity=Capacity(id=8, open_id=9, limit=units, window_us=HOUR_US))


async def test_what_was_admitted_is_charged_under_the_limit_as_it_is_by_then(tmp_path, store, monkeypatch):
    """Where other nodes have gone on under a raised limit, their bucket keeps what it holds."""
    route = Endpoint(endpoint="x", method="GET", path="/x", backend="b")
    await write_snapshot(tmp_path / "snapshot", [*CONFIG, backend_of(30), route])
    node = Node(settings_for(tmp_path / "snapshot", store.url))
    may_charge, charge = asyncio.Event(), node.settlement.charge

    async def held(*owed):
        await may_charge.wait()
        await charge(*owed)

    monkeypatch.setattr(node.settlement, "charge", held)
    async with serving(node) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        store.child.kill()
        await until(lambda: _is(client, degraded=True))
        assert (await ask(client, "local", cost=4, endpoint="x"))["degraded"]
        limits = rule(1, "hourly", 1_000, **HOURLY), rule(2, "bucket", 2_000, algorithm="token_bucket")
        raised = document_of(Plan(plan="local", limits=limits)), document_of(backend_of(3_000))
        put_in_force(node, node.decider.index.with_changes(raised), 2)
        await bring_back(store)
        await until(lambda: _is(client, degraded=False))
        assert (await ask(client, "local", cost=100, endpoint="x"))["allowed"]
        may_charge.set()

        async def charged():
            return node.settlement.charged == 12  # of three limits

        await until(charged)
        left = (await ask(client, "local", cost=0, endpoint="x", explain=True))["limits"]
        assert [limit["remaining"] for limit in left] == [896, 1896, 2896]


class Unreliable:
    """The store's side of an outage, where calls fail before or after they are done."""

    def __init__(self, charge):
        self._charge = charge
        self.fails = "before"
        self.failed = 0

    async def charge(self, *owed):
        fails, self.fails = self.fails, "before" if self.fails == "before" else ""
        if fails != "before":
            await self._charge(*owed)
        if fails:
            self.failed += 1
            raise StoreUnavailableError("TimeoutError")


async def test_what_was_admitted_counts_until_it_is_charged_and_is_charged_once(tmp_path, store, monkeypatch):
    await write_snapshot(tmp_path / "snapshot", CONFIG)
    node = Node(settings_for(tmp_path / "snapshot", store.url))
    accounts = Unreliable(node.settlement.charge)
    monkeypatch.setattr(node.settlement, "charge", accounts.charge)
    async with serving(node) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:

        async def asked_until(is_so):
            await ask(client, "local", cost=0)  # the store is tried again by a decision
            return is_so()

        await ask(client, "local")
        store.child.kill()
        await until(lambda: _is(client, degraded=True))
        assert (await ask(client, "local", cost=7))["allowed"]
        await bring_back(store)
        await until(lambda: asked_until(lambda: accounts.failed))
        store.child.kill()
        await until(lambda: _is(client, degraded=True))
        assert not (await ask(client, "local", cost=5))["allowed"], "seven of ten were taken without the store"
        accounts.fails = "after"
        await bring_back(store)
        await until(lambda: asked_until(lambda: node.settlement.charged))
        answer = await ask(client, "local", cost=0, explain=True)
        assert (node.settlement.charged, answer["limits"][0]["remaining"]) == (14, 2), "of two limits"
        store.child.kill()
        await until(lambda: _is(client, degraded=True))
        assert not (await ask(client, "local", cost=5))["allowed"], "seven of ten were, in the outage before"
        assert (await ask(client, "local", cost=3))["allowed"]
        await bring_back(store)
        await until(lambda: asked_until(lambda: node.settlement.charged > 14))
        assert node.settlement.charged == 20


async def test_a_store_that_answers_and_takes_no_charge_is_logged_once(tmp_path, store, monkeypatch):
    await write_snapshot(tmp_path / "snapshot", CONFIG)
    node = Node(settings_for(tmp_path / "snapshot", store.url))
    accounts = Unreliable(node.settlement.charge)
    monkeypatch.setattr(node.settlement, "charge", accounts.charge)
    async with serving(node) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:

        async def told_of(charges):
            with capture_logs() as lines:
                store.child.kill()
                await until(lambda: _is(client, degraded=True))
                assert (await ask(client, "local"))["allowed"]
                await bring_back(store)
                await until(charges)
            return sum(line["event"] == "outage_not_charged" for line in lines)

        async def refused():
            return accounts.failed >= 5

        async def charged():
            return node.settlement.charged

        assert await told_of(refused) == 1
        accounts.fails = "after"
        await until(charged)
        accounts.fails, accounts.failed = "before", 0
        assert await told_of(refused) == 1, "and once in the next outage"


async def test_a_denial_is_remembered_and_ends_no_later_than_it_must(tmp_path, valkey_url):
    limit = rule(9, "quick", 2, algorithm="fixed_window", window_us=500_000)
    config = [Plan(plan="p", limits=(limit,)), Client(client="c", plan="p"), key_of("c", "tg_c")]
    # a busy machine must not have the store given up: this is about a store that answers
    async with node_client(tmp_path, valkey_url, config, redis_deadline_ms=1_000) as client:
        waits = await until(lambda: _five_denials(client))
        assert waits == sorted(waits, reverse=True)
        remembered = await _remembered(client)
        assert remembered >= 1
        await asyncio.sleep(waits[-1])  # the very wait that was promised
        # it was counted from before the store was asked, which may be a moment early: then the store says how long
        while not (answer := await ask(client, "c"))["allowed"]:
            assert await _remembered(client) == remembered, "denied for longer than the store would"
            await asyncio.sleep(answer["retry_after_s"])


async def test_a_denial_is_remembered_for_the_very_counters_that_it_tells_of(tmp_path, valkey_url):
    limits = [rule(at, name, 2, scope=name, algorithm="fixed_window") for at, name in ((7, "client"), (8, "ip"))]
    config = [Plan(plan="p", limits=tuple(limits)), Client(client="c", plan="p")]
    async with node_client(tmp_path, valkey_url, config, redis_deadline_ms=1_000) as client:
        told = []
        for address in (*[1] * 3, 2):
            check = {"client": "c", "ip": f"203.0.113.{address}", "explain": True}
            told.append((await client.post("/v1/check", json=check)).json())
        assert [one["allowed"] for one in told] == [True, True, False, False]
        assert [one["violated-policies"] for one in told[2:]] == [["client", "ip"], ["client"]]
        assert told[3]["limits"][1]["remaining"] == 2, "of this address, not of the one before"


async def _remembered(client):
    told = [line for line in (await client.get("/metrics")).text.splitlines() if "remembered_total" in line]
    return float(told[-1].split()[1])


async def _five_denials(client):
    answers = [await ask(client, "c") for _ in range(5)]
    return None if any(answer["allowed"] for answer in answers) else [answer["retry_after_s"] for answer in answers]


async def _is(client, *, degraded):
    return (await ask(client, "local", cost=0))["degraded"] is degraded


async def _charged(client):
    answer = await ask(client, "local", cost=0, explain=True)
    return None if answer["degraded"] or answer["limits"][0]["remaining"] == 7 else answer
