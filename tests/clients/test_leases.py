"""What the Python client holds: never more is let through than was granted in time, whatever the order of events."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tidegate_client.leases import Lease as Held
from tidegate_client.leases import LeaseBook
from tidegate_client.messages import Check, Decision

CHECK = Check(api_key="k", endpoint="e")
ALLOWED = Decision(allowed=True, remaining=1000, source="lease")
DENIED = Decision(allowed=False, status=429, retry_after_s=3.0)


def book(**settings) -> LeaseBook:
    known = {"lease_s": 1.0, "after_per_s": 5.0, "max_units": 1_000, "remember_s": 1.0, "most": 100}
    return LeaseBook(**{**known, **settings})


class Histories(RuleBasedStateMachine):
    """Grants, spending, returns and time in any order, beside a plain account of what was granted."""

    def __init__(self) -> None:
        super().__init__()
        self.book = book()
        self.now = 0.0
        self.granted: dict[str, tuple[int, float]] = {}
        self.spent: dict[str, int] = {}
        self.returned: dict[str, int] = {}

    @rule(units=st.integers(1, 50), lasts_s=st.floats(0.01, 2.0), late_s=st.floats(0, 0.5))
    def grant(self, units, lasts_s, late_s):
        account = self.book.note(CHECK, 0, self.now)
        token, asked_at = f"t{len(self.granted)}", self.now
        self.now += late_s
        decision = Decision(allowed=True, request_id=token)
        self.granted[token] = (units, asked_at + lasts_s)
        for ending in self.book.granted(account, Held("o", token, units, asked_at, lasts_s, decision)):
            self.returned[ending.token] = self.returned.get(ending.token, 0) + ending.unused

    @rule(cost=st.integers(1, 5), times=st.integers(1, 20))
    def spend(self, cost, times):
        for _ in range(times):
            decision = self.book.take(CHECK, cost, self.now)
            if decision is not None and decision.allowed:
                token = decision.request_id
                assert self.now < self.granted[token][1], "spent after its time"
                self.spent[token] = self.spent.get(token, 0) + cost

    @rule(passed_s=st.floats(0.001, 1.5))
    def pass_time(self, passed_s):
        self.now += passed_s
        for ending in self.book.due(self.now):
            self.returned[ending.token] = self.returned.get(ending.token, 0) + ending.unused

    @invariant()
    def nothing_is_used_twice(self):
        for token, (units, _) in self.granted.items():
            assert self.spent.get(token, 0) + self.returned.get(token, 0) <= units


TestHistories = Histories.TestCase


def test_a_lease_is_returned_before_its_time_is_over_and_lost_afterwards():
    early, late = book(), book()
    for one in (early, late):
        account = one.note(CHECK, 0, 0.0)
        one.granted(account, Held("o", "t", 10, 0.0, 1.0, ALLOWED))
        assert one.take(CHECK, 4, 0.5) == ALLOWED
    assert early.due(0.5) == []
    assert [(ending.token, ending.unused) for ending in early.due(0.9)] == [("t", 6)]
    assert early.take(CHECK, 1, 0.9) is None
    assert late.due(1.0) == []
    assert late.take(CHECK, 1, 1.0) is None


def test_a_lease_that_runs_low_is_renewed_once():
    one = book()
    one.granted(one.note(CHECK, 0, 0.0), Held("o", "t", 10, 0.0, 1.0, ALLOWED))
    for _ in range(10):
        assert one.take(CHECK, 1, 0.1) == ALLOWED
    assert one.low == [CHECK]
    assert one.take(CHECK, 1, 0.1) is None


def test_sizes_follow_demand_and_shrink_near_the_limit():
    one = book()
    account = one.note(CHECK, 0, 0.0)
    account.wanted = 200
    assert one.units_to_ask(account, 1, 1.0) == 200
    scarce = Decision(allowed=True, remaining=20, source="lease")
    one.granted(account, Held("o", "t", 10, 1.0, 1.0, scarce))
    account.wanted = 200
    assert one.units_to_ask(account, 1, 2.0) == 10
    assert one.units_to_ask(account, 15, 2.0) == 15


def test_a_denial_stands_for_its_time_and_for_no_smaller_cost():
    one = book()
    one.denied(one.note(CHECK, 0, 0.0), DENIED, 3, 0.0)
    assert one.take(CHECK, 3, 0.9) == msgspec.structs.replace(DENIED, source="memory", retry_after_s=2.1)
    assert one.take(CHECK, 2, 0.9) is None
    assert one.take(CHECK, 3, 1.0) is None


def test_a_denial_that_can_end_sooner_stands_no_longer_than_it_said():
    one = book()
    one.denied(one.note(CHECK, 0, 0.0), Decision(allowed=False, status=429, retry_after_s=0.2), 1, 0.0)
    assert one.take(CHECK, 1, 0.19) is not None
    assert one.take(CHECK, 1, 0.2) is None


@given(st.integers(1, 300))
def test_accounts_are_bounded(subjects):
    one = book(most=10)
    for number in range(subjects):
        one.note(Check(api_key=str(number)), 1, 0.0)
    assert len(one.accounts) <= 10


def test_leases_of_accounts_that_make_room_go_back():
    one = book(most=2)
    for nth, lasts_s in enumerate((1.0, 0.1)):
        account = one.note(Check(api_key=str(nth)), 1, 0.0)
        one.granted(account, Held("o", f"t{nth}", 10, 0.0, lasts_s, ALLOWED))
    one.note(CHECK, 1, 0.5)
    assert [(ending.token, ending.unused) for ending in one.due(0.5)] == [("t0", 10)], "the other's time was over"
    assert one.due(0.5) == []
    one.granted(one.note(CHECK, 1, 0.5), Held("o", "t2", 10, 0.5, 1.0, ALLOWED))
    one.note(Check(api_key="0"), 1, 0.5)
    one.accounts[Check(api_key="0")].asking = True
    one.note(Check(api_key="1"), 1, 0.5)
    assert [ending.token for ending in one.close(0.5)] == ["t2"]


def test_the_times_of_a_held_answer_count_down() -> None:
    held = book(remember_s=60.0)
    allowed = Decision(allowed=True, policy="hourly", limit=9, remaining=5, reset_after_s=2.5, source="lease")
    held.granted(held.note(CHECK, 0, 100.0), Held("o", "t", 10, 100.0, 10.0, allowed))
    shown = [held.take(CHECK, 1, now).headers(now) for now in (100.25, 100.75, 102.0, 108.0)]
    assert [lines["RateLimit"] for lines in shown] == [f'"hourly";r=5;t={t}' for t in (3, 2, 1, 0)]
    assert [lines["X-RateLimit-Reset"] for lines in shown] == ["103", "103", "103", "108"]

    other = CHECK._replace(endpoint="other")
    held.denied(held.note(other, 0, 100.0), DENIED, 1, 100.0)
    repeated = [held.take(other, 1, now) for now in (100.75, 101.25, 102.75)]
    assert [decision.headers(0.0)["Retry-After"] for decision in repeated] == ["3", "2", "1"]
    assert [decision.problem()["retry_after"] for decision in repeated] == [3, 2, 1]
    assert held.take(other, 1, 103.0) is None
