"""A node that hangs, dies or answers nonsense leads to the chosen policy within the deadline; nothing is sent twice."""

import asyncio
import contextlib
import math
import socket
import threading
import time

import msgspec
import pytest

from tests.clients.faulty_node import faulty_node
from tidegate.stack.ports import free_ports
from tidegate_client import AsyncTidegate, Check, Options, Tidegate, UnavailableError
from tidegate_client.batching import Batcher
from tidegate_client.nodes import REST_S, Answered, NoAnswerError, Nodes

FAULTS = ("hangs", "hangs up", "garbage", "500", "503", "not json", "too few", "endless", "splits headers", "no number")
TIMEOUT_S = 0.6
# How much later than its deadline an answer may come on a machine that does much else.
LATE_S = 1.0
CHECK = Check(api_key="k", endpoint="e")


def options(*urls: str, **members) -> Options:
    return Options(urls=urls, timeout_s=TIMEOUT_S, **members)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("leases", [False, True])
async def test_the_policy_decides_within_the_deadline(fault, leases):
    async with faulty_node(fault) as node, AsyncTidegate(options(node.url, leases=leases, on_failure="closed")) as one:
        began = time.monotonic()
        decision = await one.decide(CHECK)
        assert time.monotonic() - began < TIMEOUT_S + LATE_S
        assert (decision.allowed, decision.status, decision.source, decision.degraded) == (False, 503, "policy", True)
        assert node.requests == 1, "what may have counted is not sent again"


async def test_open_allows_and_raise_raises():
    async with faulty_node("500") as node:
        async with AsyncTidegate(options(node.url)) as one:
            assert (await one.decide(CHECK)).allowed
        async with AsyncTidegate(options(node.url, on_failure="raise")) as one:
            with pytest.raises(UnavailableError):
                await one.decide(CHECK)


@pytest.mark.parametrize("leases", [False, True])
async def test_a_gateway_token_that_the_node_does_not_know_is_told_of_once_and_the_policy_decides(caplog, leases):
    async with faulty_node("401") as node, AsyncTidegate(options(node.url, leases=leases)) as one:
        answers = [await one.decide(CHECK) for _ in range(3)]
        async with one.reserve(5, api_key="k") as held:
            answers.append(held.decision)
        assert [(answer.allowed, answer.source) for answer in answers] == [(True, "policy")] * 4
    assert [(entry.name, entry.levelname) for entry in caplog.records] == [("tidegate_client", "ERROR")]
    assert "/v1/check/batch answered 401: it wants a gateway token" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "no..name", f"{'long' * 16}.example"])
async def test_a_node_that_is_not_there_gives_way_to_the_next(host):
    dead = f"http://{host}:{free_ports(1)[0]}"
    async with faulty_node("too few") as node, AsyncTidegate(options(dead, node.url)) as one:
        for _ in range(4):
            await one.decide(CHECK)
        assert node.requests >= 1
    async with AsyncTidegate(options(dead, on_failure="raise")) as one:
        with pytest.raises(UnavailableError, match="no node can be reached"):
            await one.decide(CHECK)


async def test_a_node_that_failed_rests_and_the_policy_answers_at_once():
    async with faulty_node("hangs") as node, AsyncTidegate(options(node.url)) as one:
        await one.decide(CHECK)
        began = time.monotonic()
        answers = await asyncio.gather(*(one.decide(CHECK) for _ in range(50)))
        # Its first rest may have ended: then one batch asks again, and no second one does.
        assert node.requests <= 2
        assert {answer.source for answer in answers} == {"policy"}
        assert time.monotonic() - began < TIMEOUT_S + LATE_S


async def test_connections_stay_open():
    async with faulty_node("none") as node, AsyncTidegate(options(node.url)) as one:
        for _ in range(20):
            assert (await one.decide(CHECK)).source == "node"
        assert (node.requests, node.connections) == (20, 1)


@pytest.mark.parametrize("fault", FAULTS)
async def test_when_the_node_is_well_again_it_is_asked_again(fault):
    async with faulty_node(fault) as node, AsyncTidegate(options(node.url)) as one:
        answers = await asyncio.gather(*(one.check(api_key=str(nth)) for nth in range(5)))
        assert {answer.source for answer in answers} == {"policy"}
        node.fault = "none"
        deadline = time.monotonic() + 10
        while (await one.decide(CHECK)).source != "node":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_every_check_of_a_batch_gets_the_policy():
    async with faulty_node("garbage") as node, AsyncTidegate(options(node.url, on_failure="closed")) as one:
        answers = await asyncio.gather(*(one.check(api_key=str(nth)) for nth in range(100)))
        assert {answer.source for answer in answers} == {"policy"}
        assert node.requests <= 2


async def test_a_caller_that_goes_away_harms_nobody():
    async with faulty_node("hangs") as node, AsyncTidegate(options(node.url)) as one:
        gone = asyncio.create_task(one.decide(CHECK))
        while not node.requests:
            await asyncio.sleep(0.005)
        gone.cancel()
        assert (await one.decide(CHECK)).source == "policy"


async def test_a_node_whose_store_is_away_is_not_a_node_that_failed():
    async with faulty_node("no store") as node, AsyncTidegate(options(node.url, leases=True)) as one:
        async with one.reserve(5, api_key="k") as held:
            assert (held.decision.source, held.decision.degraded) == ("policy", True)
        while node.paths.count("/v1/leases") < 2:
            assert (await one.decide(CHECK)).source == "node", "what can be decided without it still is"
        assert one.nodes.failures == 0


async def test_what_fails_together_makes_a_node_rest_once():
    clock = [0.0]
    async with faulty_node("hangs") as faulty:
        nodes = Nodes(options(faulty.url), lambda: clock[0])
        asked = [asyncio.create_task(nodes.post(f"/v1/{nth}", b"{}")) for nth in range(20)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer) for answer in answers} == {NoAnswerError}
        assert nodes.failures == 20
        clock[0] = REST_S
        faulty.fault = "none"
        assert (await nodes.post("/v1/later", b"{}")).status == 200
        await nodes.aclose()


async def test_a_node_that_cannot_be_connected_in_time_gives_way_to_the_next():
    with socket.socket() as deaf:
        # A queue of one that is full: the kernel drops what comes after, as a network does that loses packets.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with contextlib.ExitStack() as waiting:
            for _ in range(4):
                one = waiting.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(deaf.getsockname())
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            async with faulty_node("none") as node, AsyncTidegate(options(url, node.url)) as limiter:
                answers = [await limiter.decide(CHECK) for _ in range(4)]
    assert {answer.source for answer in answers} == {"node"}


async def test_a_settlement_is_sent_again_until_a_node_has_it():
    async with faulty_node("none") as node, AsyncTidegate(options(node.url)) as one:
        async with one.reserve(5, api_key="k") as held:
            assert held.allowed
            node.fault = "hangs up"
            held.cost = 3
        node.fault = "no store"
        settled = node.paths.count("/v1/reservations/settle")
        assert settled >= 1
        while node.paths.count("/v1/reservations/settle") <= settled:
            await asyncio.sleep(0.01)
        node.fault = "none"
        while one.settlements.under_way:
            await asyncio.sleep(0.01)
        assert node.last_body == b'{"reservation":"r","cost":3}'


def test_threads_get_the_policy_too():
    with Tidegate(options(f"http://127.0.0.1:{free_ports(1)[0]}", on_failure="closed")) as one:
        assert one.check(api_key="k").status == 503
    with Tidegate(options("http://127.0.0.1:1", on_failure="raise")) as one, pytest.raises(UnavailableError):
        one.check(api_key="k")


@pytest.mark.parametrize("policy", ["open", "closed", "raise"])
def test_a_stuck_background_loop_leads_to_the_policy_and_is_not_left_behind(policy):
    stuck = threading.Event()
    one = Tidegate(Options(urls=("http://127.0.0.1:1",), timeout_s=0.05, on_failure=policy))
    try:
        loop = one.background_loop()
        (thread,) = (each for each in threading.enumerate() if each.name == "tidegate-client")
        loop.call_soon_threadsafe(stuck.wait)
        if policy == "raise":
            with pytest.raises(UnavailableError, match="background loop"):
                one.decide(CHECK)
        else:
            told = [one.decide(CHECK), *one.check_many([(CHECK, 1)])]
            with one.reserve(5, api_key="k") as held:
                told.append(held.decision)
            assert {(each.source, each.allowed) for each in told} == {("policy", policy == "open")}
        one.close()
    finally:
        stuck.set()
    thread.join(10)
    assert not thread.is_alive()
    assert loop.is_closed()


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"urls": ()}, "urls"),
        ({"urls": "http://x"}, "urls"),
        ({"urls": ("http://x",), "timeout_s": 0}, "timeout_s"),
        ({"urls": ("http://x",), "timeout_s": math.nan}, "timeout_s"),
        ({"urls": ("http://x",), "on_failure": "Open"}, "on_failure"),
        ({"urls": ("http://x",), "lease_after_per_s": -1}, "lease_after_per_s"),
        ({"urls": ("http://x",), "max_lease_units": 10_000_001}, "max_lease_units"),
        ({"urls": ("http://x",), "max_accounts": 0}, "max_accounts"),
        ({"urls": ("http://x",), "max_batch": 1_001}, "max_batch"),
        ({"urls": ("http://x",), "lease_s": 11}, "lease_s"),
        ({"urls": ("http://x",), "remember_denials_s": -1}, "remember_denials_s"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(members, field):
    with pytest.raises(ValueError, match=f"^{field}:"):
        Options(**members)


async def test_a_node_that_refuses_large_batches_of_strangers_gets_small_ones_also_of_what_was_on_its_way():
    sizes: list[int] = []
    both_sent = asyncio.Event()

    async def post(_path: str, body: bytes) -> Answered:
        number = len(msgspec.json.decode(body)["checks"])
        sizes.append(number)
        if number > 10:
            if len(sizes) == 2:
                both_sent.set()
            await both_sent.wait()
            return Answered("", 403, b"")
        return Answered("", 200, msgspec.json.encode({"decisions": [{"allowed": True}] * number}))

    batcher = Batcher(post, 30)
    decisions = await asyncio.gather(*(batcher.decide(Check(api_key="k"), 1) for _ in range(60)))
    assert all(decision.allowed for decision in decisions)
    assert sizes == [30, 30, 10, 10, 10, 10, 10, 10]
