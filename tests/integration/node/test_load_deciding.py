"""One node decides, all apply: on a real store, with the nodes' clock driven."""

import contextlib
from types import SimpleNamespace

import msgspec
import pytest

from contract.config import Change, Endpoint, Plan
from contract.load import AdaptivePolicy, Backend, Capacity, LoadReport, ManualFactor, Pull, RegionLoad
from data_plane.adapters.load_board import LEASE, RedisLoadBoard
from data_plane.adapters.redis.settings import RedisSettings
from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.domain.index import InvalidConfigError, RuleIndex
from data_plane.domain.load.gate import GatePass
from data_plane.domain.load.gates import Gates
from data_plane.services.load import LoadDecider, LoadFollower
from data_plane.services.load_ports import PullError
from data_plane.services.load_reports import LoadReports
from data_plane.services.ports import StoreUnavailableError
from tests.servers.node import document_of

START_US = 1_900_000_000_000_000
POLICY = AdaptivePolicy(policy="protect", critical=50, signals={"cpu": 1.0, "latency_ms": 100.0})
USERS = Backend(backend="users", adaptive="protect", pulls=(Pull(server="main", signal="cpu", query="up"),))
CONFIG = [
    POLICY, USERS, Endpoint(endpoint="all", method="*", path="/users/{id}", backend="users"),
    Plan(plan="anonymous"), Plan(plan="pro", priority=50),
]  # fmt: skip


class DrivenClock:
    def __init__(self):
        self.us = START_US

    def now_us(self):
        return self.us


class Servers:
    """A port of ours: what it was asked, and what it answers."""

    def __init__(self):
        self.asked, self.answer = [], 0.5

    async def ask(self, server, query):
        self.asked.append((server, query))
        if isinstance(self.answer, str):
            raise PullError(self.answer)
        return self.answer


class Member:
    """One node's part, on a connection of its own."""

    def __init__(self, name, store, clock, book):
        self.board = RedisLoadBoard(store, name)
        self.gates, self.reports = Gates(), LoadReports(name)
        self.low, self.high = (GatePass("users", "protect", priority, 5) for priority in (0, 50))
        for one in (self.low, self.high):
            self.gates.open(one)
        self.servers, self.told = Servers(), []
        self.follower = LoadFollower(name, self.board, self.gates, self.reports, clock, book)
        self.decider = LoadDecider(name, self.board, self.follower, self.reports, self.servers, self, clock, book)

    async def report(self, load: RegionLoad):
        self.told.append(load)

    def factors(self):
        return self.low.gate.factor, self.high.gate.factor

    def ask(self, low=0, high=0):
        for gate, count in ((self.low.gate, low), (self.high.gate, high)):
            for number in range(count):
                gate.admits(f"client-{number}".encode(), 1)


@pytest.fixture
async def region(valkey_url):
    """Two nodes, their clock, and a way to let seconds pass."""
    clock = DrivenClock()
    index = RuleIndex.empty("us-east").with_changes(map(document_of, CONFIG))
    async with contextlib.AsyncExitStack() as stack:
        stores = [RedisCounterStore(RedisSettings(url=valkey_url)) for _ in range(2)]
        for store in stores:
            stack.push_async_callback(store.close)
        found = SimpleNamespace(clock=clock, index=index, stores=stores)
        book = lambda: found.index.book  # noqa: E731
        found.one, found.two = (Member(f"n{number}", store, clock, book) for number, store in enumerate(stores, 1))

        async def second(cpu=None, *, by=("a", "b"), members=(found.one, found.two), demand=(50, 50)):
            """A second passes: reporters speak to the first node, everybody follows, whoever may decides."""
            clock.us += 1_000_000
            for reporter in by if cpu is not None else ():
                found.one.reports.take(reporter, LoadReport(backend="users", cpu=cpu), clock.us)
            for member in members:
                member.ask(*demand)
                await member.follower.follow()
            for member in members:
                await member.decider.decide()
            for member in members:
                await member.follower.follow()

        found.second = second
        yield found


async def test_all_nodes_apply_what_one_decides(region):
    for _ in range(3):
        await region.second(0.5)
    assert (region.one.decider.deciding, region.two.decider.deciding) == (True, False)
    assert region.one.factors() == region.two.factors() == (1_000_000, 1_000_000)
    for _ in range(3):
        await region.second(2.0)
    (load,) = region.two.decider.loads()
    assert (load.factor, load.reason, load.signal, load.reporters, load.decided_by) == (0.5, "held", "cpu", 2, "n1")
    assert region.one.factors() == region.two.factors()
    low, high = region.two.factors()
    assert low < 100_000, "half of what is asked for is the critical class's: hardly anything is left"
    assert high == 1_000_000
    assert load.since < load.decided_at


async def test_demand_is_what_all_nodes_were_asked_for(region):
    for _ in range(3):
        await region.second(0.5, demand=(30, 10))
    (load,) = region.one.decider.loads()
    assert {one.priority: one.offered_per_s for one in load.classes} == {0: 60.0, 50: 20.0}


async def test_a_node_that_is_gone_is_replaced_and_its_successor_goes_on_from_there(region):
    for _ in range(3):
        await region.second(9.0)
    before = region.one.follower.shared.backends[0].state
    assert (before.factor, before.above) == (0.5, 1)
    await region.stores[1].execute("DEL", LEASE)  # what its time to live does when nobody keeps it
    for reporter in ("a", "b"):
        region.two.reports.take(reporter, LoadReport(backend="users", cpu=9.0), region.clock.us + 1_000_000)
    await region.second(members=(region.two,))
    assert region.two.decider.deciding
    assert region.two.follower.shared.node == "n2"
    after = region.two.follower.shared.backends[0].state
    assert after.factor == 0.25, "the second tick above, counted on from where the other left off, cuts"
    await region.second(9.0)
    assert not region.one.decider.deciding, "who comes back does not take it back"


async def test_who_lost_the_lease_publishes_nothing(region):
    await region.second(0.5)
    shared = region.one.follower.shared
    await region.stores[0].execute("SET", LEASE, "somebody-else")
    assert await region.one.board.publish(b"{}") is False
    await region.two.follower.follow()
    assert region.two.follower.shared == shared


async def test_silence_holds_and_then_recovers(region):
    for _ in range(3):
        await region.second(9.0)
    for _ in range(12):
        await region.second(None)
    (load,) = region.one.decider.loads()
    assert (load.factor, load.reason, load.reporters) == (0.5, "reporters_missing", 0)
    for _ in range(15):
        await region.second(None)
    (load,) = region.one.decider.loads()
    assert 0.5 < load.factor < 1.0
    assert load.reason == "recovering_unseen"


async def test_one_reporter_alone_cuts_nothing(region):
    for _ in range(6):
        await region.second(50.0, by=("liar",))
    (load,) = region.one.decider.loads()
    assert (load.factor, load.reason, load.reporters) == (1.0, "no_reports", 1)


async def test_nobody_reporting_cuts_nobody_whatever_is_asked_of_the_capacity(region):
    capacity = Capacity(id=7, open_id=8, limit=10, window_us=1_000_000)
    region.index = region.index.with_changes([document_of(msgspec.structs.replace(USERS, capacity=capacity))])
    for _ in range(4):
        await region.second(None, demand=(500, 0))
    assert region.one.factors() == region.two.factors() == (1_000_000, 1_000_000)
    for _ in range(4):
        await region.second(0.1, demand=(500, 0))
    assert region.two.factors()[0] == 10_000, "while they speak, who gives way at the capacity is by class"
    for _ in range(12):
        await region.second(None, demand=(500, 0))
    assert region.two.factors() == (1_000_000, 1_000_000)


async def test_a_gateway_is_one_voice_through_several_nodes(region):
    for _ in range(6):
        for member in (region.one, region.two):
            for _ in range(10):
                member.reports.take_served("edge", "users", 200, 900.0)
        await region.second(None)
    (load,) = region.one.decider.loads()
    assert (load.factor, load.reporters) == (1.0, 1)
    for _ in range(4):
        for member, gateway in ((region.one, "edge"), (region.two, "other")):
            for _ in range(10):
                member.reports.take_served(gateway, "users", 200, 900.0)
        await region.second(None)
    (load,) = region.one.decider.loads()
    assert load.factor < 1.0
    assert load.signal == "latency_ms"


async def test_a_manual_factor_rules_until_it_expires(region):
    manual = ManualFactor(factor=0.3, expires_at=START_US / 1e6 + 4)
    change = document_of(Backend(backend="users", adaptive="protect", manual=manual))
    region.index = region.index.with_changes([change])
    for _ in range(3):
        await region.second(0.1)
    (load,) = region.two.decider.loads()
    assert (load.factor, load.reason) == (0.3, "manual")
    for _ in range(10):
        await region.second(0.1)
    (load,) = region.two.decider.loads()
    assert load.factor > 0.3
    assert load.reason == "raised"


async def test_a_backend_that_loses_its_policy_is_open_at_once(region):
    for _ in range(4):
        await region.second(9.0)
    assert region.two.factors() != (1_000_000, 1_000_000)
    region.index = region.index.with_changes([document_of(Backend(backend="users"))])
    await region.two.follower.follow()
    assert region.two.factors() == (1_000_000, 1_000_000)
    assert not region.two.decider.loads()


async def test_without_the_store_factors_are_held_and_then_given_up(region, monkeypatch):
    for _ in range(4):
        await region.second(9.0)
    held = region.two.factors()
    assert held[0] < 1_000_000

    async def away():
        raise StoreUnavailableError("timeout")

    monkeypatch.setattr(region.two.board, "read", away)
    region.clock.us += 10_000_000
    await region.two.follower.follow()
    assert region.two.factors() == held
    region.clock.us += 10_000_000
    for _ in range(4 * 21):
        await region.two.follower.follow()
    assert region.two.factors() == (1_000_000, 1_000_000)


async def test_pulls_are_one_more_reporter(region):
    await region.second(None)
    region.one.servers.answer = 3.0
    for _ in range(5):
        await region.one.decider.pull()
        await region.second(3.0, by=("a",))
    assert region.one.servers.asked[0] == ("main", "up")
    (load,) = region.one.decider.loads()
    assert load.factor < 1.0
    region.one.servers.answer = "timeout"
    await region.one.decider.pull()
    assert region.one.decider.pull_failures == {"timeout": 1}


async def test_what_cannot_be_read_on_the_board_is_dropped(region):
    await region.stores[0].execute("HSET", "tg:{load}:said:users", "evil", "garbage")
    await region.stores[0].execute("HSET", "tg:{load}:demand", "evil", "\xff")
    await region.second(0.5)
    assert set(await region.one.board.pinned("users")) == {"a", "b"}
    assert set(await region.one.board.demands()) == {"n1", "n2"}
    await region.stores[0].execute("SET", "tg:{load}:factors", "garbage")
    await region.two.follower.follow()
    await region.second(0.5)
    assert region.two.decider.loads()[0].factor == 1.0


def test_an_unsound_policy_is_refused_by_the_node():
    change = document_of(AdaptivePolicy(policy="bad", target=3.0))
    assert isinstance(change, Change)
    with pytest.raises(InvalidConfigError, match="target"):
        RuleIndex.empty("us-east").with_changes([change])
