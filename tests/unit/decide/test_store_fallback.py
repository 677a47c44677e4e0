"""Decisions without the store: parts of nodes, what is owed, and checks that wait for the same call."""

import pytest

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Snapshot
from data_plane.decide.check_resolution import Anonymous
from data_plane.decide.debts import Debt
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import Tally
from data_plane.decide.pending_check import cause_of_denial
from data_plane.decide.store_fallback import StoreFallback, node_part
from data_plane.load.following import Gates
from data_plane.store.local_counters import LocalCounters
from data_plane.store.packing import encode_rule
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.script_host import ScriptHost
from data_plane.store.subject_bounds import SubjectBounds
from testing.node import document_of, rule
from tests.unit.decide.test_decide import NOW_US, AnsweredCheck, RecordingStore, StillClock
from tidegate.contract.config import Client, Plan, Region
from tidegate.contract.decision import CheckRequest
from tidegate.contract.limits import capacity


@pytest.mark.parametrize("nodes", [1, 2, 3, 12])
@pytest.mark.parametrize(
    ("algorithm", "burst"), [("token_bucket", None), ("token_bucket", 10), ("leaky_bucket", None), ("leaky_bucket", 0)]
)
def test_a_nodes_part_of_a_bucket_holds_one_or_its_part_of_what_the_whole_holds(algorithm, burst, nodes) -> None:
    whole = rule(1, "bucket", 40, algorithm=algorithm, burst=burst)
    params = [encode_rule(node_part(whole, nodes))]
    counters = LocalCounters(ScriptHost(), 10)
    allowed = sum(counters.check([b"{a}1"], params, 1, NOW_US)[0].allowed for _ in range(60))
    assert allowed == max(1, capacity(whole) // nodes)


class Outage:
    """A client's checks while there is no store; ``live`` nodes decide."""

    def __init__(self, limit: int, algorithm: str) -> None:
        self.live = 1
        self._turn: list = []
        counters = LocalCounters(ScriptHost(), 10)
        self.fallback = StoreFallback(counters, counters, lambda: self.live, self._turn.append, lambda: NOW_US)
        self._decider = Decider(
            RuleIndex.empty("us-east"), RecordingStore(), StillClock(), self.fallback, Tally(), Anonymous(), None,
            SubjectBounds(), Gates(),
        )  # fmt: skip
        self.set_limit(limit, algorithm)

    def set_limit(self, limit: int, algorithm: str) -> None:
        plan = Plan(plan="p", limits=(rule(1, "l", limit, algorithm=algorithm),))
        values = Region(region="us-east"), plan, Client(client="c", plan="p")
        index = RuleIndex.empty("us-east").with_changes(map(document_of, values))
        self._decider.applied(index, Snapshot(1, "", index.config))

    def admits(self, cost: int) -> bool:
        check = AnsweredCheck()
        check.decider, check.request, check.asked_us = self._decider, CheckRequest(client="c", cost=cost), NOW_US
        assert self._decider.make_ready(check)
        check.failed(StoreUnavailableError("timeout"), NOW_US)
        self._turn.pop()()
        return check.result.allowed

    def debts(self) -> list[Debt]:
        return self.fallback.debts.of(self.fallback.debts.owing(), NOW_US)


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket", "leaky_bucket"])
def test_no_more_is_owed_than_was_admitted_though_limit_and_part_grow_meanwhile(algorithm) -> None:
    outage = Outage(100, algorithm)
    outage.live = 2
    assert outage.admits(10)
    outage.live = 1
    assert outage.admits(1)
    outage.set_limit(1_000, algorithm)
    assert outage.admits(1)
    [debt] = outage.debts()
    assert debt.cost == 12
    assert outage.admits(3)
    outage.fallback.debts.paid([debt])
    [debt] = outage.debts()
    assert debt.cost == 3
    outage.fallback.debts.paid([debt])
    assert outage.fallback.debts.owing() == []


def test_a_check_of_more_limits_than_a_call_carries_is_denied_and_delays_no_other() -> None:
    """An IPv6 address meets a limit twice: 128 limits by address are too many."""
    many = tuple(rule(number, f"l{number}", 10, scope="ip") for number in range(1, 129))
    values = Region(region="us-east"), Plan(plan="anonymous", limits=many), Plan(plan="one", limits=many[:1])
    index = RuleIndex.empty("us-east").with_changes(map(document_of, (*values, Client(client="c", plan="one"))))
    counters = LocalCounters(ScriptHost(), 10)
    turn: list = []
    fallback = StoreFallback(counters, counters, lambda: 1, turn.append, lambda: NOW_US)
    made = Decider(
        index, RecordingStore(), StillClock(), fallback, Tally(), Anonymous(), None, SubjectBounds(), Gates()
    )  # fmt: skip
    made.applied(index, Snapshot(1, "", index.config))
    known, stranger = AnsweredCheck(), AnsweredCheck()
    known.request, stranger.request = CheckRequest(client="c", ip="2001:db8::1"), CheckRequest(ip="2001:db8::1")
    for check in known, stranger:
        check.decider, check.asked_us = made, NOW_US
        if made.make_ready(check):
            check.failed(StoreUnavailableError("timeout"), NOW_US)
    for end_of_turn in turn:
        end_of_turn()
    assert known.result.allowed
    assert (stranger.result.allowed, cause_of_denial(stranger.result)) == (False, "cannot_decide")
