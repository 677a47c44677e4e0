"""Denials that can be found: what a node denied, in the region's ring, by client, key, address and request id."""

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from data_plane.decide import denial_ring
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.denial_ring import (
    MOST_CALLERS,
    MOST_EACH,
    CallersDenials,
    DenialRing,
    Found,
    Noted,
    RedisDenials,
)
from data_plane.decide.pending_check import Refusal
from data_plane.node import Node
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.usage.answering import QuestionAnswerer
from testing.node import key_of, rule, serving, settings_for, write_snapshot
from testing.proxy import Proxy
from tidegate.contract.blocks import Block
from tidegate.contract.config import Client, Endpoint, Plan
from tidegate.contract.credentials import make_credential
from tidegate.contract.decision import CheckRequest
from tidegate.contract.denials import Denial, DenialQuery
from tidegate.contract.questions import Question

KEY = make_credential("client_key", bytes(range(32)))
OTHER = make_credential("client_key", bytes(range(1, 33)))
CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 2, algorithm="fixed_window"),)),
    Plan(plan="anonymous", limits=(rule(2, "per-ip", 1, scope="ip", algorithm="fixed_window"),)),
    Client(client="acme", plan="p"),
    Client(client="bad", plan="p"),
    key_of("acme", KEY),
    key_of("bad", OTHER),
    Endpoint(endpoint="reports", method="GET", path="/reports"),
    Block(block="out", client="bad", reason_class="abuse"),
]
MB = 1024 * 1024
CALLS_A_DENIAL, CALLS_A_CALLER = 4, 10
"""Python and C calls that noting one may take, and the first one of a caller."""


class Served(NamedTuple):
    node: Node
    client: httpx.AsyncClient

    async def found(self, **query) -> list[Denial]:
        """What the region remembers once the node has written."""
        await self.node.observability.ring.flush()
        found = await RedisDenials(self.node.store, 32 * MB).find(DenialQuery(**query), 30)
        assert found.why_not_all is None
        return found.denials


@contextlib.asynccontextmanager
async def served_by(tmp_path, url: str, values=CONFIG, **settings) -> AsyncIterator[Served]:
    await write_snapshot(tmp_path / "snapshot", values, 7)
    node = Node(settings_for(tmp_path / "snapshot", url, **{"redis_deadline_ms": 10_000, **settings}))
    async with serving(node) as base, httpx.AsyncClient(base_url=base, trust_env=False, timeout=20) as client:
        yield Served(node, client)


@pytest.fixture
async def served(tmp_path, valkey_url) -> AsyncIterator[Served]:
    async with served_by(tmp_path, valkey_url) as one:
        yield one


async def check(served: Served, **asked) -> httpx.Response:
    return await served.client.post("/v1/check", json={"method": "GET", "path": "/reports", **asked})


async def test_a_denial_is_found_by_client_key_address_and_request_id(served: Served) -> None:
    before_ms = time.time() * 1_000
    for _ in range(2):
        assert (await check(served, api_key=KEY, ip="203.0.113.9")).status_code == 200
    denied = await check(served, api_key=KEY, ip="203.0.113.9", request_id="find-me")
    assert denied.status_code == 429
    (one,) = await served.found(request_id="find-me")
    assert before_ms - 1_000 < one.at_ms < time.time() * 1_000 + 1_000
    assert (one.node, one.client, one.key, one.ip) == ("n1", "acme", KEY[:8], "203.0.113.9")
    assert (one.endpoint, one.policy, one.limit, one.used, one.cost) == ("reports", "hourly", 2, 2, 1)
    assert (one.cause, one.revision, one.degraded) == ("used_up", 7, False)
    assert one.retry_after_s is not None
    assert 0 < one.retry_after_s <= 3_600
    for query in ({"client": "acme"}, {"key": KEY[:12]}, {"ip": "203.0.113.9"}, {}):
        assert await served.found(**query) == [one], query
    for query in ({"client": "other"}, {"key": OTHER[:8]}, {"ip": "203.0.113.1"}, {"request_id": "other"}):
        assert await served.found(**query) == [], query
    assert await served.found(client="acme", until_ms=one.at_ms) == []
    assert await served.found(client="acme", since_ms=one.at_ms) == [one]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("::FFFF:203.0.113.9", "203.0.113.9"), ("2001:DB8:0:0::1", "2001:db8::1"), ("203.0.113.9", "203.0.113.9")],
)
async def test_an_address_is_found_however_the_gateway_spelled_it(served: Served, sent: str, kept: str) -> None:
    for _ in range(2):
        await check(served, ip=sent)
    assert [one.ip for one in await served.found(ip=kept)] == [kept]


async def test_what_was_allowed_or_only_looked_at_is_no_denial(served: Served) -> None:
    for cost in (1, 1, 0):
        await check(served, api_key=KEY, cost=cost)
    assert await served.found() == []


async def test_every_kind_of_denial_is_found(served: Served) -> None:
    blocked = await check(served, api_key=OTHER, ip="203.0.113.7", request_id="b")
    assert blocked.status_code == 403
    await check(served, client="acme", cost=2)
    await check(served, client="acme", cost=3, request_id="never")
    for name in ("store", "memory"):
        assert (await check(served, client="acme", request_id=name)).status_code == 429
    lease = await served.client.post("/v1/leases", json={"client": "acme", "units": 5, "ttl_s": 1})
    reserved = await served.client.post("/v1/reservations", json={"client": "acme", "cost": 1})
    assert (lease.status_code, reserved.status_code) == (429, 429)
    for _ in range(2):
        await check(served, ip="203.0.113.8", request_id="nobody")
    found = {one.request_id: one for one in await served.found()}
    assert (found["b"].cause, found["b"].client, found["b"].reason_class) == ("blocked", "bad", "abuse")
    assert found["never"].cause == "cost_above_limit"
    assert (found["store"].cause, found["memory"].used) == ("used_up", 2)
    assert (found["nobody"].client, found["nobody"].policy, found["nobody"].ip) == (None, "per-ip", "203.0.113.8")
    for answer in (lease, reserved):
        assert found[answer.json()["request_id"]].client == "acme"


async def test_what_client_libraries_denied_from_memory_is_found(tmp_path, valkey_url) -> None:
    async with served_by(tmp_path, valkey_url, trust="network") as served:
        report = {"denials": [{"client": "acme", "endpoint": "reports", "requests": 9, "cost": 9, "policy": "hourly"}]}
        answer = await served.client.post("/v1/denials", json=report)
        assert answer.status_code == 202
        (one,) = await served.found(client="acme")
    assert (one.requests, one.policy, one.endpoint, one.request_id) == (9, "hourly", "reports", None)


async def test_a_denial_without_the_store_waits_for_nobody_and_is_written_when_it_is_back(tmp_path, valkey_url) -> None:
    closed = Plan(plan="closed", limits=(rule(3, "closed", 9, algorithm="fixed_window", on_store_failure="closed"),))
    values = [*CONFIG, closed, Client(client="strict", plan="closed")]
    port = urlsplit(valkey_url).port
    async with (
        Proxy(port).running() as proxy,
        served_by(
            tmp_path, valkey_url.replace(f":{port}/", f":{proxy.port}/"), values, redis_deadline_ms=200
        ) as served,
    ):
        assert (await check(served, client="strict")).status_code == 200
        await proxy.cut()
        async with asyncio.timeout(20):
            while (denied := await check(served, client="strict")).status_code == 200:
                pass
        assert (await check(served, api_key=OTHER, request_id="blocked-meanwhile")).status_code == 403
        ring = served.node.observability.ring
        await ring.flush()
        assert ring.kept == 0
        await proxy.heal()
        async with asyncio.timeout(20):
            while not ring.kept:
                await asyncio.sleep(0.05)
        (one,) = await served.found(request_id=denied.json()["request_id"])
        assert (one.cause, one.policy, one.client) == ("cannot_decide", "closed", "strict")
        assert len(await served.found(request_id="blocked-meanwhile")) == 1


async def test_what_waits_for_the_store_is_bounded_and_what_does_not_fit_is_counted() -> None:
    store = Kept()
    store.away, ring = True, DenialRing("n1", store)
    for at in range(5):
        ring.note(*noted("acme", at, f"r{at}"))
        await ring.flush()
    for at in range(5, 5 + MOST_EACH):
        ring.note(*noted("acme", at, f"r{at}"))
    for number in range(MOST_CALLERS):
        ring.note(*noted(f"other-{number}", 9, "r"))
    await ring.flush()
    assert (store.callers, ring.kept, ring.not_kept) == ([], 0, 1), "one caller found no room"
    store.away = False
    await ring.flush()
    (acme,) = (one for one in store.callers if one.name == "acme")
    denials = [msgspec.msgpack.decode(one, type=Denial) for one in acme.packed]
    assert [one.request_id for one in denials] == [f"r{at}" for at in range(MOST_EACH)]
    assert denials[-1].left_out == 5
    assert (ring.kept, ring.not_kept) == (MOST_EACH + MOST_CALLERS - 1, 1 + 5)


async def test_0_mb_keeps_none(tmp_path, valkey_url) -> None:
    async with served_by(tmp_path, valkey_url, denials_max_mb=0) as served:
        assert (await check(served, api_key=OTHER)).status_code == 403
        assert served.node.observability.ring is None


def noted(name: str | None, at_us: int, request_id: str) -> Noted:
    principal = type("P", (), {"client": type("C", (), {"client": name})}) if name else None
    return Noted(at_us, principal, CheckRequest(ip="203.0.113.1"), request_id, 7, Refusal.SUSPENDED)


class Kept:
    """A store that remembers what it was given; away while ``away``."""

    def __init__(self) -> None:
        self.callers: list[CallersDenials] = []
        self.away = False

    async def keep(self, callers: list[CallersDenials], *, are_clients: bool) -> None:
        if self.away:
            raise StoreUnavailableError("TimeoutError")
        self.callers += callers

    async def find(self, query: DenialQuery, within_s: float) -> Found:
        raise NotImplementedError


async def test_who_is_denied_most_leaves_room_for_others_and_memory_is_bounded() -> None:
    store = Kept()
    ring = DenialRing("n1", store)
    for at in range(1_000):
        ring.note(*noted("loud", at, f"r{at}"))
    ring.note(*noted("quiet", 1_000, "mine"))
    for at in range(MOST_CALLERS + 50):
        ring.note(0, None, CheckRequest(ip=f"203.0.{at // 256}.{at % 256}"), None, 7, Refusal.MISSING_KEY)
    await ring.flush()
    kept = {one.name: one.packed for one in store.callers}
    assert (len(kept["loud"]), len(kept["quiet"]), len(kept)) == (MOST_EACH, 1, MOST_CALLERS + 2)
    assert (ring.kept, ring.not_kept) == (MOST_EACH + 1 + MOST_CALLERS, 1_000 - MOST_EACH + 50)
    await ring.flush()
    assert len(store.callers) == len(kept), "each is written once"


@pytest.fixture
async def store(tmp_path, valkey_url) -> AsyncIterator[RedisCounterStore]:
    one = RedisCounterStore(settings_for(tmp_path / "none", valkey_url).store_settings())
    await one.start()
    yield one
    await one.close()


async def keep(ring: RedisDenials, name: str, *at_ms: int, are_clients: bool = True) -> None:
    node = DenialRing("n1", ring)
    for at in at_ms:
        of = noted(name, at * 1_000, f"{name}-{at}")
        node.note(*(of if are_clients else of._replace(principal=None, request=CheckRequest(ip=name))))
    await node.flush()


async def test_a_minute_that_is_past_is_still_told_after_many_later_denials(store, monkeypatch) -> None:
    monkeypatch.setattr(denial_ring, "MOST_LATEST", 3)
    ring = RedisDenials(store, 32 * MB)
    for minute in (10, 11, 12):
        await keep(ring, "acme", *range(minute * 60_000, minute * 60_000 + 8))
    found = (await ring.find(DenialQuery(client="acme"), 30)).denials
    assert [one.at_ms for one in found] == [720_007, 720_006, 720_005, 720_000, 660_000, 600_000]
    assert [one.request_id for one in found][-1] == "acme-600000"
    assert 0 < await store.execute("PTTL", "{tg:denials}:c:acme:l") <= denial_ring.KEPT_MS


async def test_a_region_remembers_so_many_callers_and_addresses_take_no_clients_room(store) -> None:
    ring = RedisDenials(store, 4 * denial_ring.CALLER_BYTES)  # room for three clients and one address
    for at, name in enumerate(("one", "two", "three", "one", "four")):
        await keep(ring, name, 100_000 + at)
    for at in range(10):
        await keep(ring, f"203.0.113.{at}", 200_000 + at, are_clients=False)
    found = (await ring.find(DenialQuery(), 30)).denials
    assert {one.client or one.ip for one in found} == {"three", "one", "four", "203.0.113.9"}
    assert len(await store.execute("KEYS", "*denials*")) == 2 + 2 * 4, "nothing is left of those that gave way"


async def test_looking_ends_in_time_and_says_how_far_it_came(store) -> None:
    ring = RedisDenials(store, 32 * MB, elapsed_s=iter(range(100)).__next__)
    for at in range(30):
        await keep(ring, f"c{at}", at)
    found = await ring.find(DenialQuery(), 0.5)
    assert found.why_not_all == "10 of 30 callers' denials were looked through in 0.5 s"
    assert [one.client for one in found.denials] == [f"c{at}" for at in range(29, 19, -1)], "the latest first"


async def test_the_agent_answers_what_the_control_plane_asks(store) -> None:
    ring = RedisDenials(store, 32 * MB)
    await keep(ring, "acme", 1_000)

    def answering(denials) -> QuestionAnswerer:
        return QuestionAnswerer("a1", None, store, None, None, lambda: 7, lambda: True, None, denials)

    asked = Question("0" * 32, "", denials=DenialQuery(client="acme"))
    answer = await answering(ring).answer(asked)
    assert (answer.error, [one.client for one in answer.denials]) == (None, ["acme"])
    none = await answering(None).answer(asked)
    assert (none.error, none.denials) == ("no denials are kept here", ())


@pytest.mark.parametrize(("callers", "times"), [(1, 4_000), (MOST_CALLERS, MOST_EACH)], ids=["more", "kept"])
def test_a_denial_is_noted_on_the_decision_path_in_few_steps(callers: int, times: int) -> None:
    """What it costs in time is a benchmark's to say; here it may not do more than look up, compare and append."""

    class Asked:
        request, revision, request_id = CheckRequest(), 7, "r"

        def __init__(self, name: str) -> None:
            self.principal = noted(name, 1, "r").principal

    asked = [Asked(f"client-{at}") for at in range(callers)] * times
    denied = type("Denied", (), {"allowed": False})

    def calls(*, ring: bool) -> int:
        log = DenialLog(0.0, DenialRing("n1", Kept()) if ring else None)
        made = 0

        def count(frame: object, event: str, called: object) -> None:
            nonlocal made
            made += event in {"call", "c_call"}

        gc.collect()
        gc.disable()  # a collection calls finalizers of other tests, which would be counted
        sys.setprofile(count)
        try:
            for check in asked:
                log.concluded(check, denied, 1)
        finally:
            sys.setprofile(None)
            gc.enable()
        return made

    more = calls(ring=True) - calls(ring=False)
    assert more <= CALLS_A_DENIAL * len(asked) + CALLS_A_CALLER * callers
