"""Two nodes' part in adaptive limits on a real store, with their clock driven."""

import contextlib
from types import SimpleNamespace

from data_plane.config.index import RuleIndex
from data_plane.config.load_gate import GatePass
from data_plane.load.controller import explain_all
from data_plane.load.deciding import LoadDecider, PullError
from data_plane.load.following import Gates, LoadFollower, LoadReports, RedisFactorStore
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.store import RedisCounterStore
from testing.node import document_of
from tidegate.contract.config import Endpoint, Plan
from tidegate.contract.load import AdaptivePolicy, Backend, LoadReport, Pull, RegionLoad

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
        self.asked, self.answer, self.answers = [], 0.5, {}

    async def ask(self, server, query):
        self.asked.append((server, query))
        answer = self.answers.get(query, self.answer)
        if isinstance(answer, str):
            raise PullError(answer)
        return answer


class Member:
    """One node's part, on a connection of its own."""

    def __init__(self, name, store, clock, book):
        self.factor_store = RedisFactorStore(store, name)
        self.gates, self.reports = Gates(), LoadReports(name)
        self.low, self.high = (GatePass("users", "protect", priority, 5) for priority in (0, 50))
        for one in (self.low, self.high):
            self.gates.open(one)
        self.servers, self.told = Servers(), []
        self.follower = LoadFollower(name, self.factor_store, self.gates, self.reports, clock, book)
        self.decider = LoadDecider(name, self.factor_store, self.reports, self.servers, self, clock, book)

    async def report(self, load: RegionLoad):
        self.told.append(load)

    def loads(self):
        """Why every factor is what it is, as this one applies it."""
        return explain_all(self.follower.shared)

    def factors(self):
        return self.low.gate.factor, self.high.gate.factor

    def ask(self, low=0, high=0):
        for gate, count in ((self.low.gate, low), (self.high.gate, high)):
            for number in range(count):
                gate.admits(f"client-{number}".encode(), 1)


@contextlib.asynccontextmanager
async def load_region(valkey_url):
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
