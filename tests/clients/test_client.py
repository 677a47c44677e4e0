"""The Python client against a real node: decisions, micro-batches, leases and reservations."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from tests.clients.conftest import config
from tidegate_client import AsyncTidegate, Check, InvalidCheckError, Options, Tidegate
from tidegate_client.messages import read_decision

KEY = "tg_acme"
PATIENT_S = 5.0
"""On a busy machine an answer may take its time; these tests are not about deadlines."""


def options(*urls: str, **members) -> Options:
    return Options(**{"urls": urls, "timeout_s": PATIENT_S, "on_failure": "raise", **members})


async def left(url: str) -> int:
    async with AsyncTidegate(options(url, remember_denials_s=0)) as one:
        return (await one.check(api_key=KEY, cost=0)).remaining


def test_who_is_shed_for_a_backends_sake_is_told_so_as_nodes_tell_it():
    shed = {"allowed": False, "status": 429, "error": "rate_limit_exceeded", "cause": "reduced_capacity"}
    told = read_decision(msgspec.json.encode({**shed, "policy": "pro", "retry_after_s": 2.0})).problem()
    assert told["type"] == "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
    assert (told["title"], told["retry_after"]) == ("Temporary Reduced Capacity", 2)


async def test_a_decision_says_what_the_node_says(start_node):
    node = start_node(config(3))
    async with AsyncTidegate(options(node.url)) as one:
        first = await one.check(api_key=KEY, method="GET", path="/users/7")
        assert (first.allowed, first.status, first.remaining, first.limit, first.client) == (True, 200, 2, 3, "acme")
        assert first.headers()["RateLimit-Policy"] == '"hourly";q=3;w=3600'
        assert first.headers()["X-RateLimit-Remaining"] == "2"
        assert (await one.check(api_key=KEY, cost=2)).remaining == 0
        denied = await one.check(api_key=KEY)
        assert (denied.allowed, denied.status, denied.source) == (False, 429, "node")
        problem = denied.problem()
        assert denied.headers()["Retry-After"] == str(problem["retry_after"])
        assert (problem["instance"], problem["violated-policies"]) == (denied.request_id, ["hourly"])
        assert (await one.check(api_key=KEY)).source == "memory"


async def test_an_end_users_unknown_key_is_refused_and_nothing_is_said_of_gateway_tokens(start_node, caplog):
    node = start_node(config(3), unknown_key="refuse")
    async with AsyncTidegate(options(node.url, leases=True, lease_after_per_s=0)) as one:
        refused = await one.check(api_key="tg_nobody")
        assert (refused.status, refused.source, refused.error) == (401, "node", "unknown_api_key")
    assert not [entry for entry in caplog.records if entry.name == "tidegate_client"]


async def test_many_at_once_are_few_requests_in_order(start_node):
    node = start_node(config(1_000))
    async with AsyncTidegate(options(node.url)) as one:
        checks = [(Check(api_key=KEY), 1)] * 400 + [(Check(client="nobody"), 1)] + [(Check(endpoint="health"), 1)]
        answers = await one.check_many(checks)
        assert [answer.allowed for answer in answers[:400]] == [True] * 400
        assert sorted((answer.remaining for answer in answers[:400]), reverse=True) == list(range(999, 599, -1))
        assert isinstance(answers[400], InvalidCheckError)
        assert answers[401].allowed
        assert one.batcher.batches <= 3


async def test_what_one_end_user_sends_spoils_no_others_check(start_node):
    node = start_node(config(1_000))
    async with AsyncTidegate(options(node.url)) as one:
        long = Check(api_key=KEY, method="GET", path="/users/" + "x" * 60_000)
        checks = [(long, 1)] * 40 + [(Check(api_key=KEY, path="/\ud800"), 1), (Check(api_key=KEY), 1)]
        answers = await one.check_many(checks)
        assert all(isinstance(answer, InvalidCheckError) for answer in answers[:-1])
        assert answers[-1].allowed
        with pytest.raises(InvalidCheckError):
            await one.check(api_key=KEY, path="/" + "x" * 2_000_000)


async def test_a_request_as_it_came_in(start_node):
    node = start_node(config(5))
    async with AsyncTidegate(options(node.url)) as one:
        for headers in ([("X-API-Key", KEY)], [("authorization", f"Bearer {KEY}")]):
            decision = await one.authorize(method="GET", path="/users/1", headers=headers, ip="203.0.113.9")
            assert decision.client == "acme"
        assert decision.remaining == 3


async def test_leases_admit_exactly_the_limit(start_node):
    node = start_node(config(2_000))
    other = start_node(config(2_000))
    check = Check(api_key=KEY, endpoint="get-user")
    admitted = 0
    async with (
        AsyncTidegate(options(node.url, leases=True, lease_s=0.5)) as one,
        AsyncTidegate(options(other.url, leases=True, lease_s=0.5)) as two,
    ):
        sources = set()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answers = await asyncio.gather(*(limiter.decide(check) for limiter in (one, two) for _ in range(5)))
            admitted += sum(answer.allowed for answer in answers)
            sources |= {answer.source for answer in answers}
            assert admitted <= 2_000
            if not any(answer.allowed for answer in answers) and await left(node.url) == 0:
                break
            await asyncio.sleep(0)
        assert {"lease", "node"} <= sources
    # What either still held came back when it closed: nothing is lost, nothing was admitted twice.
    assert admitted + await left(node.url) == 2_000


async def test_a_node_that_goes_away_in_the_middle_costs_nothing_but_what_was_held_from_it(start_node):
    limit = 3_000
    one, two = start_node(config(limit)), start_node(config(limit))
    check = Check(api_key=KEY, endpoint="get-user")
    admitted = 0
    async with AsyncTidegate(options(one.url, two.url, leases=True, lease_s=0.5, on_failure="closed")) as limiter:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            decision = await limiter.decide(check)
            admitted += decision.allowed
            if admitted == limit // 3:
                await asyncio.to_thread(one.stop)
            if decision.status == 429 and decision.source != "memory" and await left(two.url) == 0:
                break
    assert limit // 3 < admitted <= limit
    assert admitted + await left(two.url) <= limit


async def test_closing_returns_what_is_held(start_node):
    node = start_node(config(1_000_000))
    check = Check(api_key=KEY, endpoint="get-user")
    admitted = 0
    async with AsyncTidegate(options(node.url, leases=True)) as one:
        while (await one.decide(check)).source != "lease":
            admitted += 1
        admitted += 1
    assert await left(node.url) == 1_000_000 - admitted


@pytest.mark.parametrize("cost", [0.5, -1])
async def test_a_cost_that_is_no_count_of_units_is_refused_with_a_lease_too(start_node, cost):
    node = start_node(config(1_000_000))
    check = Check(api_key=KEY, endpoint="get-user")
    admitted = 1
    with Tidegate(options(node.url, leases=True, lease_s=10)) as one:
        while one.decide(check).source != "lease":
            admitted += 1
        with pytest.raises(InvalidCheckError):
            one.decide(check, cost)
    assert await left(node.url) == 1_000_000 - admitted


async def test_an_idle_lease_goes_back_in_time(start_node):
    node = start_node(config(1_000_000))
    check = Check(api_key=KEY, endpoint="get-user")
    admitted = 0
    async with AsyncTidegate(options(node.url, leases=True, lease_s=0.5)) as one:
        while (await one.decide(check)).source != "lease":
            admitted += 1
        admitted += 1
        deadline = time.monotonic() + 10
        while await left(node.url) != 1_000_000 - admitted:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    assert await left(node.url) == 1_000_000 - admitted


async def test_routes_that_cannot_be_leased_are_asked_for_one_by_one(start_node):
    node = start_node(config(300, algorithm="sliding_log"))
    async with AsyncTidegate(options(node.url, leases=True)) as one:
        began = time.monotonic()
        answers = []
        while time.monotonic() - began < 0.3:
            answers.append(await one.check(api_key=KEY))
        assert {answer.source for answer in answers} <= {"node", "memory"}
        assert sum(answer.allowed for answer in answers) + await left(node.url) == 300


async def test_a_reservation_is_settled_at_its_true_cost(start_node):
    node = start_node(config(100))
    async with AsyncTidegate(options(node.url)) as one:
        async with one.reserve(40, api_key=KEY) as held:
            assert held.allowed
            assert await left(node.url) == 60
            held.cost = 25
        assert await left(node.url) == 75
        with pytest.raises(RuntimeError, match="the model failed"):
            async with one.reserve(40, api_key=KEY):
                raise RuntimeError("the model failed")
        assert await left(node.url) == 75
        async with one.reserve(76, api_key=KEY) as held:
            assert not held.allowed
        async with one.reserve(10, api_key=KEY):
            pass
        assert await left(node.url) == 65


async def test_a_settlement_that_no_node_understands_is_told_of_once(start_node, caplog):
    node = start_node(config(100))
    async with AsyncTidegate(options(node.url)) as one:
        for _ in range(2):
            async with one.reserve(10, api_key=KEY) as held:
                held.cost = 2.5
        assert await left(node.url) == 80
    (line,) = [record.getMessage() for record in caplog.records if record.name == "tidegate_client"]
    assert line.startswith("a settlement was refused, so its estimate stands:")
    assert "`float`" in line


def test_threads_share_one_client(start_node):
    node = start_node(config(500))
    with Tidegate(options(node.url, leases=True)) as one, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: one.check(api_key=KEY, endpoint="get-user"), range(1_000)))
        assert sum(answer.allowed for answer in answers) <= 500
        with one.reserve(0, api_key=KEY) as held:
            assert held.allowed


def test_a_fork_begins_afresh(start_node):
    node = start_node(config(1_000))
    with Tidegate(options(node.url, leases=True)) as one:
        assert one.check(api_key=KEY).allowed
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, b"1" if one.check(api_key=KEY).allowed and not one.book.low else b"0")
            os._exit(0)
        assert os.read(reader, 1) == b"1"
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
    assert asyncio.run(left(node.url)) == 998
