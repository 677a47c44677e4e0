"""What clients meet at a backend under load: classes, prices, headers and problems, through both doors."""

import asyncio
import re
import time

import pytest

from data_plane.config.index import RuleIndex
from data_plane.config.load_gate import FULL, cohort_of, hour_seed, threshold_of
from data_plane.decide.check_resolution import Anonymous, resolve
from data_plane.decide.denial_ring import RedisDenials
from data_plane.decide.pending_check import ResolvedCheck, conclude
from data_plane.store.asking import ask as ask_store
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.subject_bounds import SubjectBounds
from testing.agent import node_with_agent
from testing.node import document_of, key_of, rule
from tidegate.contract.config import Client, Endpoint, Plan
from tidegate.contract.credentials import make_credential, secret_sha256
from tidegate.contract.decision import CheckRequest
from tidegate.contract.denials import DenialQuery
from tidegate.contract.load import AdaptivePolicy, Backend, Capacity, ManualFactor, Reporter

REDUCED = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
SECRETS = [make_credential("reporter", bytes(range(at, at + 32))) for at in (2, 3)]
IDLE = {"backend": "users", "cpu": 0.1}
PAUSE_S = 0.1
"""Between rounds of requests: demand is known after a second, however many there are in it."""
HOUR = {"algorithm": "fixed_window", "window_us": 3_600_000_000}


def manual(factor, **members):
    """A backend under an operator's factor: decided at the first tick, whatever anybody reports."""
    return Backend(
        backend="users", adaptive="protect", manual=ManualFactor(factor=factor, expires_at=time.time() + 600), **members
    )


def config(backend, **policy):
    return [
        AdaptivePolicy(policy="protect", critical=50, **policy),
        backend,
        Endpoint(endpoint="all", method="*", path="/users/{id}", backend="users"),
        Endpoint(endpoint="other", method="*", path="/other"),
        Plan(plan="low", limits=(rule(1, "hourly", 10_000, adaptive="protect", **HOUR),)),
        Plan(plan="pro", priority=50, limits=(rule(2, "hourly", 10_000, adaptive="protect", **HOUR),)),
        *(Client(client=f"low-{number}", plan="low") for number in range(40)),
        *(key_of(f"low-{number}", f"tg_low-{number}") for number in range(40)),
        Client(client="pro", plan="pro"),
        key_of("pro", "tg_pro"),
        *(
            Reporter(reporter=f"r{at}", sha256=secret_sha256(one), backends=("users",))
            for at, one in enumerate(SECRETS)
        ),
    ]


@pytest.fixture(params=[True, False], ids=["lane", "asgi"])
def lane(request):
    return request.param


async def ask(node, who, path="/users/1", **members):
    return await node.post("/v1/check", json={"api_key": f"tg_{who}", "method": "GET", "path": path, **members})


async def status_of(node):
    return (await node.get("/v1/status")).json()["adaptive"]


async def until_decided(node):
    """Wait until something is applied (it is shown in the same turn)."""
    async with asyncio.timeout(15):
        while not (await status_of(node))["backends"]:
            await asyncio.sleep(0.02)


async def test_while_all_is_well_nobody_notices(tmp_path, valkey_url, lane):
    async with node_with_agent(tmp_path, valkey_url, config(manual(1.0)), lane=lane) as node:
        await until_decided(node)
        for left in (9_999, 9_998):
            answer = await ask(node, "low-1")
            assert (answer.status_code, answer.json()["remaining"]) == (200, left)
        (load,) = (await status_of(node))["backends"]
        assert (load["factor"], load["reason"], load["backend"], load["policy"]) == (1.0, "manual", "users", "protect")


async def remembered(store_url, request_id):
    """What the region's ring has of a denial, as soon as it has it."""
    store = RedisCounterStore(RedisSettings(url=store_url))
    await store.start()
    try:
        async with asyncio.timeout(15):
            while not (found := (await RedisDenials(store).find(DenialQuery(request_id=request_id), 5)).denials):
                await asyncio.sleep(0.05)
    finally:
        await store.close()
    return found


async def test_the_lowest_class_is_shed_and_told_why(tmp_path, valkey_url, lane):
    async with node_with_agent(tmp_path, valkey_url, config(manual(0.5)), lane=lane) as node:
        await until_decided(node)
        shed = None
        async with asyncio.timeout(15):
            while shed is None:  # demand is known after a second: then the classes are told apart
                low = [await ask(node, f"low-{number}") for number in range(9)]
                assert (await ask(node, "pro")).status_code == 200, "a tenth of what is asked for, and half is admitted"
                shed = next((who for who, answer in enumerate(low) if answer.status_code == 429), None)
                await asyncio.sleep(PAUSE_S)
        seen_shed = low[shed]
        body = seen_shed.json()
        assert seen_shed.status_code == 429
        assert (body["status"], body["error"], body["policy"]) == (429, "rate_limit_exceeded", "protect")
        assert body["violated-policies"] == ["protect"]
        assert 5 <= body["retry_after"] <= 11
        assert seen_shed.headers["retry-after"] == str(body["retry_after"])
        assert seen_shed.headers["cache-control"] == "no-store"
        assert (await ask(node, f"low-{shed}", path="/other")).status_code == 200, (
            "another backend has nothing to do with it"
        )
        metrics = (await node.get("/metrics")).text
        assert 'tidegate_load_factor{backend="users"} 0.5' in metrics
        assert 'tidegate_load_shed_units_total{backend="users",priority="0"}' in metrics
        gateway = await node.get("/v1/authorize/users/1", headers={"x-api-key": f"tg_low-{shed}"})
        assert gateway.status_code == 429
        (denial,) = await remembered(valkey_url, body["request_id"])
        assert (denial.cause, denial.policy, denial.client) == ("reduced_capacity", "protect", f"low-{shed}")
        assert denial.retry_after_s == body["retry_after"]
        assert gateway.json()["type"] == REDUCED
        assert "plan" not in gateway.json(), "it reaches end users"


async def test_the_boundary_class_is_cut_by_clients_not_by_chance(tmp_path, valkey_url):
    async with node_with_agent(tmp_path, valkey_url, config(manual(0.5))) as node:

        async def everybody():
            answers = await asyncio.gather(*(ask(node, f"low-{number}") for number in range(40)))
            return [answer.status_code == 200 for answer in answers]

        async with asyncio.timeout(15):
            while True:  # half of what the only class asks for is half of its clients
                await everybody()
                loads = (await status_of(node))["backends"]
                classes = {one["priority"]: one for one in loads[0]["classes"]} if loads else {}
                if classes and classes[0]["offered_per_s"] and classes[0]["factor"] < 1.0:
                    break
                await asyncio.sleep(PAUSE_S)
        assert classes[0]["factor"] == pytest.approx(0.5, abs=0.001)
        seed, half = hour_seed(int(time.time() * 1e6)), threshold_of(FULL // 2)
        expected = [cohort_of(f'"low-{number}"'.encode(), seed) < half for number in range(40)]
        for _ in range(3):
            assert await everybody() == expected
        assert 10 < sum(expected) < 30


async def test_an_admitted_request_costs_more_and_headers_say_what_is_left(tmp_path, valkey_url, lane):
    async with node_with_agent(tmp_path, valkey_url, config(manual(0.4)), lane=lane) as node:
        before, passed = None, []
        async with asyncio.timeout(15):
            while not (passed == before and 0 < len(passed) < 40):  # until demand is known, and the class is cut
                answers = await asyncio.gather(*(ask(node, f"low-{number}") for number in range(40)))
                before, passed = passed, [one.json()["client"] for one in answers if one.status_code == 200]
                await asyncio.sleep(PAUSE_S)
        client = passed[0]
        left = []
        for _ in range(20):
            answer = await ask(node, client)
            assert answer.status_code == 200
            assert answer.json()["limit"] == 10_000
            left.append(int(answer.headers["x-ratelimit-remaining"]))
            assert left[-1] == answer.json()["remaining"]
            assert f"r={left[-1]};" in answer.headers["ratelimit"]
        assert left[0] < 10_000 * 0.4, "at 2.5 a request no more than 4,000 can be made"
        assert left[0] - left[-1] == pytest.approx(19, abs=2), "told at the present price, each takes one"


async def test_capacity_is_cut_to_its_factor_and_denials_say_so(tmp_path, valkey_url, lane):
    capacity = Capacity(id=7, open_id=8, limit=60, window_us=3_600_000_000)
    plain = [Plan(plan="free"), Client(client="free", plan="free"), key_of("free", "tg_free")]
    values = [*config(manual(0.5, capacity=capacity)), *plain]
    async with node_with_agent(tmp_path, valkey_url, values, lane=lane) as node:
        await until_decided(node)
        passed, denied = 0, None
        for _ in range(40):
            answer = await ask(node, "free")
            if answer.status_code == 200:
                passed += 1
            elif answer.json()["violated-policies"] == ["capacity"]:
                denied = answer
        assert passed <= 30, "sixty at twice the price"
        if denied is not None:
            assert denied.json()["type"] == REDUCED
            assert denied.json()["message"] == "The service takes fewer requests for the moment."


async def test_a_client_that_its_own_limit_denies_takes_nobodys_place(tmp_path, valkey_url):
    backend = Backend(
        backend="users", adaptive="protect", capacity=Capacity(id=7, open_id=8, limit=20, window_us=1_000_000)
    )
    greedy = [Plan(plan="greedy", limits=(rule(3, "hourly", 2, **HOUR),)), Client(client="greedy", plan="greedy")]
    values = [*config(backend), *greedy, key_of("greedy", "tg_greedy")]
    async with node_with_agent(tmp_path, valkey_url, values) as node:
        ticks = set()
        async with asyncio.timeout(30):
            while len(ticks) < 4:  # its demand is known, had it any
                for secret in SECRETS:
                    await node.post("/v1/load", json=IDLE, headers={"x-tidegate-token": secret})
                await asyncio.gather(*(ask(node, "greedy") for _ in range(60)))
                ticks |= {one["decided_at"] for one in (await status_of(node))["backends"]}
                await asyncio.sleep(PAUSE_S)
        (load,) = (await status_of(node))["backends"]
        assert {one["factor"] for one in load["classes"]} == {1.0}
        others = await asyncio.gather(*(ask(node, f"low-{number}") for number in range(10)))
        assert [answer.status_code for answer in others] == [200] * 10
        metrics = (await node.get("/metrics")).text
        assert 'tidegate_load_own_units_total{backend="users",priority="0"}' in metrics


async def test_a_capacity_limits_without_any_policy(tmp_path, valkey_url, lane):
    values = [
        Backend(backend="users", capacity=Capacity(id=7, open_id=8, limit=5, window_us=3_600_000_000)),
        Endpoint(endpoint="all", method="*", path="/users/{id}", backend="users"),
        Plan(plan="free"), Client(client="free", plan="free"), key_of("free", "tg_free"),
    ]  # fmt: skip
    async with node_with_agent(tmp_path, valkey_url, values, lane=lane) as node:
        answers = [(await ask(node, "free")) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        assert answers[-1].json()["violated-policies"] == ["capacity"]
        assert (await ask(node, "free", path="/other")).status_code == 200


async def test_the_reserve_is_for_the_critical_class(valkey_url):
    capacity = Capacity(id=7, open_id=8, limit=20, window_us=3_600_000_000)
    values = config(Backend(backend="users", adaptive="protect", capacity=capacity), reserve=0.5)
    index = RuleIndex.empty("us-east").with_changes(map(document_of, values))
    store = RedisCounterStore(RedisSettings(url=valkey_url, deadline_ms=5_000))
    await store.start()

    async def passes(client):
        request = CheckRequest(client=client, method="GET", path="/users/1")
        check = ResolvedCheck(request)
        assert resolve(check, index, Anonymous(), SubjectBounds(), time.time()) is None
        outcomes, _ = await ask_store(store, check.keys, check.limit_set.params, 1)
        return conclude(check, outcomes).allowed

    assert [await passes("low-1") for _ in range(12)] == [True] * 10 + [False] * 2
    assert [await passes("pro") for _ in range(12)] == [True] * 10 + [False] * 2, "all of the rest is its own"
    await store.close()


async def test_two_reporters_are_believed_and_the_factor_is_explained(tmp_path, valkey_url):
    backend = Backend(backend="users", adaptive="protect")
    async with node_with_agent(tmp_path, valkey_url, config(backend, cut_after=1, smoothing=1.0)) as node:
        async with asyncio.timeout(20):
            while True:
                for secret in SECRETS:
                    body = {"backend": "users", "cpu": 4.0}
                    taken = await node.post("/v1/load", json=body, headers={"x-tidegate-token": secret})
                    assert taken.status_code == 202
                loads = (await status_of(node))["backends"]
                if loads and loads[0]["factor"] < 1.0:
                    break
                await asyncio.sleep(0.05)
        (load,) = loads
        assert (load["reason"], load["signal"], load["reporters"]) == ("cut", "cpu", 2)
        assert load["decided_by"] == "a1"
        assert 0 <= load["decided_at"] - load["since"] < 5
        metrics = (await node.get("/metrics")).text
        assert 'tidegate_load_reason{backend="users",reason="cut",signal="cpu"} 1.0' in metrics
        (since,) = re.findall(r'tidegate_load_factor_since_timestamp_seconds{backend="users"} (\S+)', metrics)
        assert float(since) == pytest.approx(load["since"], abs=1e-3)


async def test_requests_to_a_protected_backend_cannot_be_leased(tmp_path, valkey_url):
    async with node_with_agent(tmp_path, valkey_url, config(Backend(backend="users", adaptive="protect"))) as node:
        asked = {"api_key": "tg_pro", "method": "GET", "units": 10}
        protected = (await node.post("/v1/leases", json={**asked, "path": "/users/1"})).json()
        assert (protected["granted"], protected["lease"]) == (0, None)
        assert "users" in protected["reason"]
        other = (await node.post("/v1/leases", json={**asked, "path": "/other"})).json()
        assert other["granted"] == 10
