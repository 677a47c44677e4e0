"""What counts as asked of a backend: not what it would never have seen, or one client's denials shed all others."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from data_plane.config.index import RuleIndex
from data_plane.config.load_gate import ALL, FULL
from data_plane.decide.check_resolution import Anonymous
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import Tally
from data_plane.decide.denial_cache import DenialCache
from data_plane.decide.pending_check import CHECK_SLOTS, PendingCheck
from data_plane.decide.store_fallback import StoreFallback
from data_plane.load.controller import BackendFactors, ControlState
from data_plane.load.following import Gates
from data_plane.store.local_counters import LocalCounters
from data_plane.store.packing import figures_of
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.script_host import ScriptHost
from data_plane.store.subject_bounds import SubjectBounds
from testing.node import document_of, key_of, rule
from tidegate.contract.config import Client, Endpoint, Plan
from tidegate.contract.decision import CheckRequest
from tidegate.contract.load import AdaptivePolicy, Backend, Capacity

NOW_US = 1_764_000_000_000_000
LIMIT = 3
CAPACITY = Capacity(id=7, open_id=8, limit=50, window_us=3_600_000_000)
CONFIG = [
    AdaptivePolicy(policy="protect"),
    Backend(backend="users", adaptive="protect", capacity=CAPACITY),
    Endpoint(endpoint="all", method="*", path="/users/{id}", backend="users"),
    Plan(plan="low", limits=(rule(1, "hourly", LIMIT),)),
    Plan(plan="follows", limits=(rule(2, "hourly", LIMIT, adaptive="protect"),)),
    Plan(plan="free"),
    Client(client="low", plan="low"),
    Client(client="follows", plan="follows"),
    Client(client="free", plan="free"),
    *(key_of(client, f"tg_{client}") for client in ("low", "follows", "free")),
]


class Asked(PendingCheck):
    __slots__ = (*CHECK_SLOTS, "result")

    def decided(self, result, now_us: int) -> None:
        self.result = result


class Store:
    """Decides in memory, at the prices that a check has been given."""

    def __init__(self) -> None:
        self.asked, self.away = 0, False
        self._counters = LocalCounters(ScriptHost(), 100)

    def submit(self, check: PendingCheck) -> None:
        self.asked += 1
        if self.away:
            check.failed(StoreUnavailableError("timeout"), NOW_US)
            return
        outcomes = self._counters.check(check.keys, check.params, check.cost, NOW_US)
        check.done(figures_of(NOW_US, outcomes)[1:], 0, NOW_US)

    def submit_all(self, checks: Sequence[PendingCheck]) -> None:
        for check in checks:
            self.submit(check)


class World:
    def __init__(self, memory: DenialCache | None = None) -> None:
        self.store = Store()
        clock = SimpleNamespace(now_us=lambda: NOW_US)
        counters, unasked = LocalCounters(ScriptHost(), 100), LocalCounters(ScriptHost(), 100)
        fallback = StoreFallback(counters, unasked, lambda: 1, lambda call: call(), clock.now_us)
        index = RuleIndex.empty("us-east").with_changes(map(document_of, CONFIG))
        self.gates = Gates()
        self.decider = Decider(
            index, self.store, clock, fallback, Tally(), Anonymous(), memory, SubjectBounds(), self.gates
        )  # fmt: skip

    def ask(self, who: str, times: int = 1, cost: int = 1) -> int:
        """How many passed."""
        passed = 0
        for _ in range(times):
            check = Asked()
            request = CheckRequest(api_key=f"tg_{who}", method="GET", path="/users/1", cost=cost)
            check.decider, check.request, check.asked_us = self.decider, request, NOW_US
            self.decider.decide(check)
            passed += check.result.allowed
        return passed

    def factors(self, whole: int, low: int) -> None:
        state = ControlState()
        one = BackendFactors(
            backend="users", policy="protect", whole=whole, classes={0: low}, floor=FULL // 10, reserve=0, demand={},
            state=state,
        )  # fmt: skip
        self.gates.apply([one], NOW_US)

    @property
    def demand(self) -> int:
        """Units that the backend would have been asked for."""
        gates = self.gates
        return gates.offered()["users", 0] - gates.own()["users", 0]


@pytest.mark.parametrize("memory", [None, DenialCache(10)], ids=["asked each time", "remembered"])
def test_what_a_clients_own_limit_denies_is_no_demand(memory: DenialCache | None) -> None:
    world = World(memory)
    assert world.ask("low", times=40) == LIMIT
    assert world.demand == LIMIT
    assert world.store.asked == (40 if memory is None else LIMIT + 1)


def test_what_the_capacity_denies_is_demand() -> None:
    world = World(DenialCache(10))
    assert world.ask("free", times=80) == CAPACITY.limit
    assert world.demand == 80


def test_what_a_price_denies_is_demand_and_what_would_be_denied_without_it_is_not() -> None:
    world = World()
    assert world.ask("follows", times=LIMIT - 1) == LIMIT - 1
    world.factors(whole=FULL, low=FULL // 2)
    (gate,) = world.gates.by_class.values()
    gate.threshold = ALL  # whatever this client's cohort is
    assert world.ask("follows") == 0, "one is left, and two is the price"
    assert world.demand == LIMIT
    world.factors(whole=FULL, low=FULL)
    assert world.ask("follows") == 1
    assert world.demand == LIMIT + 1
    world.factors(whole=FULL, low=FULL // 2)
    gate.threshold = ALL
    assert world.ask("follows") == 0
    assert world.demand == LIMIT + 1


def test_what_is_shed_is_demand_up_to_its_own_limits() -> None:
    world = World()
    world.factors(whole=FULL // 10, low=0)
    assert world.ask("low", times=40) == 0
    assert world.store.asked == 0, "to shed is cheap"
    assert world.demand == LIMIT
    assert world.ask("free", times=40) == 0
    assert world.demand == LIMIT + 40


@pytest.mark.parametrize("low", [FULL, 0], ids=["admitted", "shed"])
def test_what_the_backend_can_never_do_is_no_demand(low: int) -> None:
    world = World()
    world.factors(whole=FULL // 2, low=low)
    assert world.ask("free", cost=CAPACITY.limit + 1) == 0
    assert world.demand == 0


def test_denials_without_the_store_are_no_demand_either() -> None:
    world = World()
    world.store.away = True
    assert world.ask("low", times=40) == LIMIT
    assert world.demand == LIMIT
