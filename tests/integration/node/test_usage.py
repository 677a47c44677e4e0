"""Usage from the node's counts through the stream to the control plane: nothing twice, nothing dropped in silence."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from data_plane.config.index import RuleIndex
from data_plane.config.routes import UNMATCHED
from data_plane.decide.pending_check import ResolvedCheck, conclude
from data_plane.node import Node
from data_plane.process import ControlPlaneUnavailableError
from data_plane.store.packing import Outcome
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.settings import RedisSettings, Shape
from data_plane.store.redis.store import RedisCounterStore
from data_plane.usage import answering as answering_module
from data_plane.usage import stream as usage_shipping
from data_plane.usage import tally as usage_module
from data_plane.usage.answering import QuestionAnswerer
from data_plane.usage.stream import LEASE, REFUSED, STREAM, HttpUsageSink, RedisUsageStream, UsageShipper
from data_plane.usage.tally import UsageFlusher, UsageTally
from testing.entered import files_entered
from testing.node import document_of, key_of, put_in_force, rule, serving, settings_for, write_snapshot
from tests.integration.redis.clusters import start_cluster
from tidegate.contract.blocks import Block
from tidegate.contract.config import Change, Client, Endpoint, Plan
from tidegate.contract.decision import CheckRequest
from tidegate.contract.limits import LimitRule, Match
from tidegate.contract.questions import Question
from tidegate.contract.usage import (
    MOST_UNITS,
    Denials,
    LimitName,
    RefusedBatch,
    Shipment,
    ShipmentAnswer,
    UsageBatch,
    unpack,
)
from tidegate.stack.store import StoreServer
from tools.docs.flows import steps_of

HOUR_US = 3_600_000_000
PLAN = Plan(plan="free", limits=(rule(1, "hourly", 10), rule(2, "watched", 5, shadow=True)))
INDEX = RuleIndex.empty("us-east").with_changes(
    Change(kind, id, msgspec.Raw(msgspec.json.encode(body)))
    for kind, id, body in (
        ("plan", "free", PLAN),
        ("limit", "hourly", rule(3, "hourly", 100, scope="ip")),
        *(("client", f"c{number}", Client(client=f"c{number}", plan="free")) for number in range(1_200)),
    )
)
BOUND = INDEX.book.limit_set("free", None, UNMATCHED, "GET", 0.0, sites=False)
SMALL = 2_000
"""Bytes: more than an empty stream takes, less than one with 400 cells."""
PASSES, DENIES = Outcome(True, 1, 1, 0, 0), Outcome(False, 0, 1, 1, 0)


@dataclass
class Clock:
    us: int = 500_000 * HOUR_US + HOUR_US // 2

    def now_us(self) -> int:
        return self.us

    def forward(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


@dataclass
class Decided:
    """A check as far as the tally looks at it."""

    client: int | None
    cost: int = 1
    limit_set: object = BOUND
    principal: object = None

    def __post_init__(self):
        self.principal = None if self.client is None else INDEX.clients.get(f"c{self.client}")

    def verdict(self, *outcomes: Outcome):
        check = ResolvedCheck(CheckRequest(), self.principal)
        check.limit_set, check.cost = BOUND, self.cost
        return conclude(check, list(outcomes))


@dataclass
class Parts:
    """A node's parts of usage on a real store."""

    store: RedisCounterStore
    clock: Clock
    tally: UsageTally
    stream: RedisUsageStream
    flusher: UsageFlusher

    def pass_(self, client: int | None, times: int = 1, cost: int = 1) -> None:
        for _ in range(times):
            self.tally.passed(Decided(client, cost), degraded=False)

    async def flush(self, after_s: float = 1.0) -> None:
        self.clock.forward(after_s)
        await self.flusher.flush()

    async def batches(self) -> list[UsageBatch]:
        return [unpack(entry.packed) for entry in await self.stream.oldest(1_000)]


@contextlib.asynccontextmanager
async def parts(
    url: str, node: str = "us-east-1", max_bytes: int = 10**8, shape: Shape = "standalone"
) -> AsyncIterator[Parts]:
    store = RedisCounterStore(RedisSettings(url=url, shape=shape))
    await store.start()
    clock, tally = Clock(), UsageTally()
    stream = RedisUsageStream(store, max_bytes, clock)
    try:
        yield Parts(store, clock, tally, stream, UsageFlusher(node, "0a", tally, stream, clock))
    finally:
        await store.close()


@pytest.fixture
async def node(store_url: str) -> AsyncIterator[Parts]:
    async with parts(store_url) as made:
        yield made


async def test_what_was_decided_is_in_the_stream_with_its_names(node: Parts) -> None:
    node.pass_(7, times=3, cost=2)
    node.pass_(None)
    node.pass_(8, cost=0)
    denied = Decided(7, cost=4)
    node.tally.decided(denied, denied.verdict(DENIES, DENIES, PASSES), 0)
    remarked = Decided(7, cost=2)
    node.tally.decided(remarked, remarked.verdict(PASSES, DENIES, PASSES), 0)
    await node.flush()
    (batch,) = await node.batches()
    assert (batch.node, batch.incarnation, batch.sequence, batch.hour) == ("us-east-1", "0a", 1, 500_000)
    (place,) = batch.places
    names = [LimitName("free", "hourly"), LimitName("free", "watched"), LimitName("_", "hourly")]
    assert (place.plan, place.endpoint, list(place.limits)) == ("free", "_unmatched", names)
    cells = {cell.client: cell for cell in batch.cells}
    assert set(cells) == {"c7", ""}
    assert (cells["c7"].allowed, cells["c7"].cost) == (4, 8)
    assert set(cells["c7"].denials) == {Denials((0,), (1,), 1, 4), Denials((), (1,), 1, 2)}
    await node.flush()
    assert len(await node.batches()) == 1, "nothing new, no batch"


async def test_no_cost_makes_a_batch_that_nobody_can_take(node: Parts) -> None:
    huge = 10**24  # the largest cost of a request on the dearest route
    node.pass_(7, times=3, cost=huge)
    denied = Decided(8, cost=huge)
    node.tally.decided(denied, denied.verdict(DENIES, PASSES, PASSES), 0)
    node.pass_(9)
    await node.flush()
    (batch,) = await node.batches()
    cells = {cell.client: cell for cell in batch.cells}
    assert (cells["c7"].allowed, cells["c7"].cost) == (3, MOST_UNITS)
    assert cells["c8"].denials == (Denials((0,), (), 1, MOST_UNITS),)
    assert (cells["c9"].allowed, cells["c9"].cost) == (1, 1)


async def test_many_callers_make_many_batches_in_order(node: Parts) -> None:
    for client in range(1_200):
        node.pass_(client)
    await node.flush()
    batches = await node.batches()
    assert [batch.sequence for batch in batches] == list(range(1, 1 + 1_200 // usage_module.CELLS_A_BATCH))
    assert sum(cell.allowed for batch in batches for cell in batch.cells) == 1_200
    assert node.flusher.flushed_requests == 1_200


async def test_an_hour_ends_with_a_batch_of_its_own(node: Parts) -> None:
    node.clock.us = 500_001 * HOUR_US - 100_000
    node.pass_(1)
    await node.flush(after_s=0.1)  # just after the hour's end: what was counted belongs to it
    node.pass_(1)
    await node.flush(after_s=0.9)
    assert [batch.hour for batch in await node.batches()] == [500_000, 500_001]


async def test_while_the_store_is_away_counts_add_up_and_come_once_it_is_back(start_store) -> None:
    server: StoreServer = start_store(durable=True)
    async with parts(server.url) as node:
        node.pass_(1)
        await node.flush()
        server.child.kill()
        node.pass_(1, times=4)
        with pytest.raises(StoreUnavailableError):
            await node.stream.hold_lease("us-east-1")
        await node.flush()
        node.pass_(1, times=2)
        node.pass_(2, times=3)
        server.child.start()
        async with asyncio.timeout(20):
            while node.flusher.flushed_requests < 10:
                await node.flush()
                await asyncio.sleep(0.05)
        batches = await node.batches()
        allowed = {}
        for sequence, cells in {batch.sequence: batch.cells for batch in batches}.items():  # a name counts once
            assert sequence <= len(batches)
            for cell in cells:
                allowed[cell.client] = allowed.get(cell.client, 0) + cell.allowed
        assert allowed == {"c1": 7, "c2": 3}
        assert node.flusher.lost_requests == 0
    server.child.stop()


async def test_decisions_have_time_between_two_batches_and_what_is_counted_meanwhile_waits_no_longer(
    valkey_url: str,
) -> None:
    rest_s = 0.05
    async with parts(valkey_url) as node:
        for client in range(3 * usage_module.CELLS_A_BATCH):
            node.pass_(client)
        began_s = asyncio.get_running_loop().time()
        await node.flusher.flush(rest_s)
        took_s = asyncio.get_running_loop().time() - began_s
        assert len(await node.batches()) == 3
        assert took_s >= 2 * rest_s
        assert node.flusher.pause_s() <= usage_module.FLUSH_EVERY_S - 4 * rest_s


async def test_a_full_stream_holds_back_and_loses_only_what_it_says(valkey_url: str, monkeypatch) -> None:
    monkeypatch.setattr(usage_module, "CELLS_A_BATCH", 400)
    async with parts(valkey_url, max_bytes=SMALL) as node:
        for client in range(400):
            node.pass_(client)
        assert node.flusher.pause_s() == usage_module.FLUSH_EVERY_S
        await node.flush()  # to an empty stream: it fits
        monkeypatch.setattr(usage_module, "MAX_HELD_CELLS", 2)
        for client in (1, 2, 3, 4):
            node.pass_(client)
            await node.flush(after_s=3)
        assert len(await node.batches()) == 1
        assert node.flusher.stream_full
        assert node.flusher.pause_s() > usage_module.FLUSH_EVERY_S
        assert node.flusher.lost_requests == 1, "the batch that has its name, and two cells, are held"
        await node.stream.delete([entry.id for entry in await node.stream.oldest(10)])
        await node.flush(after_s=3)
        assert not node.flusher.stream_full
        kept = sum(cell.allowed for batch in await node.batches() for cell in batch.cells)
        assert (kept, node.flusher.lost_requests) == (3, 1)


async def test_a_clock_that_is_set_back_keeps_no_stream_full(valkey_url: str, monkeypatch) -> None:
    monkeypatch.setattr(usage_module, "CELLS_A_BATCH", 400)
    async with parts(valkey_url, max_bytes=SMALL) as node:
        for client in range(400):
            node.pass_(client)
        await node.flush()
        node.pass_(1)
        await node.flush(after_s=3)
        assert node.flusher.stream_full
        await node.stream.delete([entry.id for entry in await node.stream.oldest(10)])
        await node.flush(after_s=-7_200)
        assert not node.flusher.stream_full
        assert [cell.allowed for batch in await node.batches() for cell in batch.cells] == [1]


async def test_says_until_when_every_living_node_has_flushed(valkey_url: str) -> None:
    async with parts(valkey_url) as first, parts(valkey_url, node="us-east-2") as second:
        assert await first.stream.flushed_until_us(first.clock.us) is None
        await first.flush(after_s=2)
        await second.flush(after_s=1)
        assert await first.stream.flushed_until_us(first.clock.us) == second.clock.us
        first.clock.forward(20)
        await first.flush(after_s=0)
        assert await first.stream.flushed_until_us(first.clock.us) == first.clock.us, "the other one is gone"


@dataclass
class ControlPlane:
    """A control plane's handler: keeps what is shipped, answers as told."""

    status: int = 200
    refuse: tuple[RefusedBatch, ...] = ()
    got: list[Shipment] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(msgspec.msgpack.decode(await request.read(), type=Shipment))
        body = msgspec.json.encode(ShipmentAnswer(taken=0, known=0, refused=self.refuse))
        return web.Response(status=self.status, body=body)

    def shipped(self) -> list[int]:
        return [unpack(batch).sequence for shipment in self.got for batch in shipment.batches]


@pytest.fixture
async def control_plane() -> AsyncIterator[ControlPlane]:
    made, app = ControlPlane(), web.Application()
    app.router.add_post("/{path:.*}", made.take)
    async with TestServer(app) as server:
        made.url = str(server.make_url("/"))
        yield made


@contextlib.asynccontextmanager
async def shipper(node: Parts, control_plane: ControlPlane, name: str = "us-east-1") -> AsyncIterator[UsageShipper]:
    sink = HttpUsageSink(control_plane.url, "tgr_x", name, "us-east")
    try:
        yield UsageShipper(name, node.stream, sink, node.clock, lambda: 0.0)
    finally:
        await sink.close()


async def test_usage_enters_the_files_of_the_page_and_no_others(node: Parts, control_plane: ControlPlane) -> None:
    """The data plane's files of the Usage flow in ``docs/how-it-works.md``."""
    async with shipper(node, control_plane) as ship:
        for _ in range(2):  # the first one makes connections
            with files_entered() as files:
                node.pass_(None)
                await node.flush()
                await ship.ship()
    assert control_plane.shipped() == [1, 2]
    floor = ("data_plane/process.py", "data_plane/store/")
    through = {file for file in files if file.startswith("data_plane/") and not file.startswith(floor)}
    assert through == {step.file for step in steps_of("Usage") if step.file.startswith("data_plane/")}


async def test_others_get_their_turn_while_counts_of_an_outage_are_added_up() -> None:
    class Away:
        fill = 0.0

        async def add(self, packed: bytes) -> bool:
            raise StoreUnavailableError("connection_lost")

    tally = UsageTally()
    flusher = UsageFlusher("n1", "ab", tally, Away(), Clock())
    for _ in range(2):
        for client in range(1_000):
            tally.passed(Decided(client), degraded=True)
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        others = asyncio.create_task(take_turns())
        await flusher.flush(usage_module.PAUSE_S)
        others.cancel()
    assert turns >= 1_000 // usage_module.CELLS_A_BATCH - 1
    assert flusher.held_cells == 1_000
    assert not tally.take()


async def test_a_batch_leaves_the_stream_only_once_it_is_answered_for(node: Parts, control_plane: ControlPlane) -> None:
    node.pass_(1)
    await node.flush()
    async with shipper(node, control_plane) as ship:
        control_plane.status = 503
        with pytest.raises(ControlPlaneUnavailableError):
            await ship.ship()
        assert len(await node.batches()) == 1
        control_plane.status = 200
        await ship.ship()
        assert await node.batches() == []
        assert control_plane.shipped() == [1, 1]
        assert control_plane.got[-1].complete_until_ms == node.clock.us // 1_000
        asked = len(control_plane.got)
        await ship.ship()
        assert len(control_plane.got) == asked, "there is nothing to say"
        node.clock.forward(4)
        await node.flush(after_s=0)
        await ship.ship()
        assert control_plane.got[-1].batches == (), "but now and then that it is complete"
        node.clock.forward(-7_200)
        await node.flush()
        await ship.ship()
        assert control_plane.got[-1].complete_until_ms == node.clock.us // 1_000, "by a clock that was set back too"


async def test_what_is_refused_is_set_aside_and_the_rest_goes_on(node: Parts, control_plane: ControlPlane) -> None:
    await node.store.execute("XADD", STREAM, "*", b"b", b"garbage")
    node.pass_(1)
    await node.flush()
    control_plane.refuse = (RefusedBatch(0, "is not deflated"),)
    async with shipper(node, control_plane) as ship:
        await ship.ship()
        assert ship.refused_batches == 1
    assert await node.batches() == []
    assert await node.store.execute("XLEN", REFUSED) == 1


async def test_what_waits_is_shipped_when_the_control_plane_asks(
    node: Parts, control_plane: ControlPlane, monkeypatch
) -> None:
    def answering(ship: Callable[[], Awaitable[None]]) -> QuestionAnswerer:
        return QuestionAnswerer("us-east-1", None, node.store, node.clock, lambda: INDEX, lambda: 7, lambda: True, ship)

    node.pass_(1)
    await node.flush()
    now = Question("0" * 32, "", "usage")
    async with shipper(node, control_plane) as ship:
        answer = await answering(ship.ship).answer(now)
    assert (answer.error, answer.revision, control_plane.shipped()) == (None, 7, [1])
    monkeypatch.setattr(answering_module, "SHIP_WITHIN_S", 0.01)
    assert (await answering(asyncio.Event().wait).answer(now)).error == "more waits than the region ships in 0.01 s"

    async def without_a_store() -> None:
        raise StoreUnavailableError("TimeoutError")

    assert (await answering(without_a_store).answer(now)).error == "the store does not answer"


async def test_one_node_ships_and_another_takes_over(valkey_url: str, control_plane: ControlPlane) -> None:
    async with parts(valkey_url) as node:
        assert await node.stream.hold_lease("us-east-1")
        assert await node.stream.hold_lease("us-east-1")
        assert not await node.stream.hold_lease("us-east-2")
        await node.store.execute("DEL", LEASE)  # as when its time is over
        assert await node.stream.hold_lease("us-east-2")
        await node.stream.release_lease("us-east-1")  # it holds none by now
        assert 0 < await node.store.execute("PTTL", LEASE) <= 5_000
        await node.stream.release_lease("us-east-2")
        assert await node.stream.hold_lease("us-east-1")


async def test_a_shipment_is_bounded_and_the_next_one_takes_the_rest(
    node: Parts, control_plane: ControlPlane, monkeypatch
) -> None:
    monkeypatch.setattr(usage_shipping, "MAX_BATCHES", 4)
    for client in range(10):
        node.pass_(client)
        await node.flush()
    async with shipper(node, control_plane) as ship:
        await ship.ship()
    assert [len(shipment.batches) for shipment in control_plane.got] == [4, 4, 2]
    assert [shipment.complete_until_ms is not None for shipment in control_plane.got] == [False, False, True]
    assert control_plane.shipped() == list(range(1, 11))


async def test_works_on_a_cluster(start_store, control_plane: ControlPlane) -> None:
    servers = start_cluster(start_store, "Valkey", None)
    async with parts(servers[0].url, shape="cluster") as node, shipper(node, control_plane) as ship:
        node.pass_(1, times=3)
        await node.flush()
        node.pass_(2)
        await node.flush(after_s=3)
        assert node.stream.bytes > 0, "it can be asked for its size"
        assert await node.stream.hold_lease("us-east-1")
        assert await node.stream.hold_lease("us-east-1")
        await ship.ship()
        assert control_plane.shipped() == [1, 2]
        assert control_plane.got[-1].complete_until_ms == node.clock.us // 1_000
        assert await node.batches() == []
        await node.stream.set_aside(b"x", "odd")
    for server in servers:
        server.child.stop()


async def test_what_a_lease_takes_is_usage_when_it_is_taken(node: Parts) -> None:
    check = Decided(1)
    node.tally.held(check.verdict(PASSES, PASSES, PASSES).check, requests=20, cost=40)
    await node.flush()
    ((cell,),) = [batch.cells for batch in await node.batches()]
    assert (cell.client, cell.allowed, cell.cost) == ("c1", 20, 40)


@pytest.mark.parametrize("lane", [True, False])
async def test_every_door_counts_and_a_node_that_stops_leaves_nothing_behind(
    valkey_url: str, tmp_path: Path, lane: bool
) -> None:
    config = [PLAN, Client(client="c1", plan="free"), key_of("c1", "tg_one")]
    await write_snapshot(tmp_path / "snapshot", config)
    check = {"api_key": "tg_one", "method": "GET", "path": "/x"}
    async with (
        serving(Node(settings_for(tmp_path / "snapshot", valkey_url)), lane=lane) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        for _ in range(3):
            assert (await client.post("/v1/check", json=check)).status_code == 200
        assert (await client.post("/v1/check/batch", json={"checks": [check] * 4})).status_code == 200
        for _ in range(4):
            await client.get("/v1/authorize/x", headers={"x-api-key": "tg_one"})
        await client.post("/v1/check", json=check | {"cost": 0})
    async with parts(valkey_url) as node:
        cells = [cell for batch in await node.batches() for cell in batch.cells]
        assert {(cell.client, cell.key_id) for cell in cells} == {("c1", "c1-key")}
        assert sum(cell.allowed for cell in cells) == 10
        assert sum(one.requests for cell in cells for one in cell.denials if one.denied) == 1


async def test_leases_and_reservations_are_measured_and_their_denials_are_usage(
    valkey_url: str, tmp_path: Path
) -> None:
    limits = (rule(1, "hourly", 100),)
    dated = (rule(2, "log", 100, algorithm="sliding_log"),)
    await write_snapshot(
        tmp_path / "snapshot",
        [
            Plan(plan="free", limits=limits), Client(client="c1", plan="free"), key_of("c1", "tg_one"),
            Plan(plan="dated", limits=dated), Client(client="c2", plan="dated"), key_of("c2", "tg_two"),
        ],
    )  # fmt: skip
    who = {"api_key": "tg_one"}
    async with (
        serving(Node(settings_for(tmp_path / "snapshot", valkey_url))) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        lease = (await client.post("/v1/leases", json=who | {"units": 10})).json()
        await client.post("/v1/leases/return", json={"returns": [{"lease": lease["lease"], "unused": 4}]})
        held = (await client.post("/v1/reservations", json=who | {"cost": 94})).json()
        assert (await client.post("/v1/leases", json=who | {"units": 3})).status_code == 429
        assert (await client.post("/v1/reservations", json=who | {"cost": 7})).status_code == 429
        await client.post("/v1/reservations/settle", json={"reservation": held["reservation"], "cost": 90})
        await client.post("/v1/leases", json={"api_key": "tg_two", "units": 3})
        shown = (await client.get("/metrics")).text.splitlines()
    assert {
        "tidegate_leased_units_total 10.0", "tidegate_lease_returned_units_total 4.0",
        "tidegate_reserved_units_total 94.0", "tidegate_settled_units_total 90.0",
        'tidegate_holds_denied_total{kind="lease"} 1.0', 'tidegate_holds_denied_total{kind="reservation"} 1.0',
        "tidegate_leases_impossible_total 1.0",
    } <= set(shown)  # fmt: skip
    async with parts(valkey_url) as node:
        cells = [cell for batch in await node.batches() for cell in batch.cells]
    denials = [one for cell in cells if cell.client == "c1" for one in cell.denials if one.denied]
    assert (sum(one.requests for one in denials), sum(one.cost for one in denials)) == (2, 8)


@pytest.mark.parametrize("limits", [(rule(1, "hourly", 1_000),), ()], ids=["roomy", "unlimited"])
async def test_what_comes_back_of_leases_and_reservations_is_taken_off_the_same_usage(
    valkey_url: str, tmp_path: Path, limits: tuple[LimitRule, ...]
) -> None:
    nothing = rule(2, "never", 0, match=Match(endpoints=("denied",)))
    values = [
        Plan(plan="free", limits=(*limits, nothing)), Client(client="c1", plan="free"), key_of("c1", "tg_one"),
        *(Endpoint(endpoint=name, method="*", path=f"/{name}", cost=0) for name in ("granted", "denied")),
    ]  # fmt: skip
    await write_snapshot(tmp_path / "snapshot", values)
    who = {"api_key": "tg_one", "method": "GET", "path": "/x"}
    async with (
        serving(Node(settings_for(tmp_path / "snapshot", valkey_url))) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        lease = (await client.post("/v1/leases", json=who | {"units": 50})).json()
        returns = {"returns": [{"lease": lease["lease"], "unused": 20}]}
        for returned in (20, 0):
            assert (await client.post("/v1/leases/return", json=returns)).json() == {"returned": [returned]}
        held = (await client.post("/v1/reservations", json=who | {"cost": 40})).json()
        settlement = {"reservation": held["reservation"], "cost": 15}
        for _ in range(2):
            assert (await client.post("/v1/reservations/settle", json=settlement)).status_code == 200
        for endpoint, status in (("granted", 200), ("denied", 429)):  # where requests cost nothing they are no usage
            asked = {"api_key": "tg_one", "endpoint": endpoint}
            assert (await client.post("/v1/leases", json=asked | {"units": 5})).status_code == status
            assert (await client.post("/v1/reservations", json=asked | {"cost": 5})).status_code == status
    async with parts(valkey_url) as node:
        cells = [cell for batch in await node.batches() for cell in batch.cells]
        assert {(cell.client, cell.key_id) for cell in cells} == {("c1", "c1-key")}
        assert not any(cell.denials for cell in cells)
        assert sum(cell.allowed for cell in cells) == 50 - 20 + 1
        assert sum(cell.cost for cell in cells) == 50 - 20 + 15


@pytest.mark.parametrize(
    "change",
    [
        Client(client="c1", plan="free", status="suspended"),
        Block(block="b1", client="c1", reason_class="abuse"),
        Endpoint(endpoint="x", method="*", path="/x", exempt=True),
    ],
    ids=["suspended", "blocked", "exempt"],
)
async def test_what_comes_back_is_taken_off_whatever_has_become_of_its_owner(
    valkey_url: str, tmp_path: Path, change: Client | Block | Endpoint
) -> None:
    route = Endpoint(endpoint="x", method="*", path="/x")
    await write_snapshot(tmp_path / "snapshot", [PLAN, Client(client="c1", plan="free"), key_of("c1", "tg_one"), route])
    asked = {"api_key": "tg_one", "endpoint": "x"}
    node = Node(settings_for(tmp_path / "snapshot", valkey_url))
    async with serving(node) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        lease = (await client.post("/v1/leases", json=asked | {"units": 1})).json()
        held = (await client.post("/v1/reservations", json=asked | {"cost": 4})).json()
        put_in_force(node, node.decider.index.with_changes([document_of(change)]), 2)
        returns = {"returns": [{"lease": lease["lease"], "unused": 1}]}
        assert (await client.post("/v1/leases/return", json=returns)).json() == {"returned": [1]}
        settlement = {"reservation": held["reservation"], "cost": 1}
        assert (await client.post("/v1/reservations/settle", json=settlement)).json()["returned"] == 3
    async with parts(valkey_url) as others:
        batches = await others.batches()
    cells = [(batch.places[cell.place].endpoint, cell) for batch in batches for cell in batch.cells]
    assert {endpoint for endpoint, _ in cells} == {"x"}
    assert (sum(cell.allowed for _, cell in cells), sum(cell.cost for _, cell in cells)) == (1, 1)
