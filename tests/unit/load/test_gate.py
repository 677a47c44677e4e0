"""The gate on the hot path: who passes, what it costs, and what clients are shown."""

import struct
from collections import Counter

import pytest

from data_plane.config.load_gate import (
    BY_CLASS,
    BY_WHOLE,
    FULL,
    MAX_COSTS,
    Charged,
    ClassGate,
    GatePass,
    hour_seed,
    open_factor,
)
from data_plane.load.controller import BackendFactors, ControlState
from data_plane.load.following import Gates
from data_plane.store.packing import PRICED, Outcome, encode_check, is_priced, params_in

HALF = FULL // 2
SEED = hour_seed(1_900_000_000_000_000)


def test_a_gate_that_is_told_nothing_admits_everybody_and_counts():
    gate = ClassGate()
    assert all(gate.admits(str(number).encode(), 3) for number in range(100))
    assert (gate.offered, gate.shed) == (300, 0)


def test_a_class_factor_sheds_the_same_clients_again_and_again():
    gate = ClassGate()
    gate.set(HALF, HALF, floor=FULL // 5, reserve=0, seed=SEED)
    clients = [str(number).encode() for number in range(1_000)]
    first = [gate.admits(client, 1) for client in clients]
    assert [gate.admits(client, 1) for client in clients] == first
    assert 450 < sum(first) < 550
    assert gate.shed == 2 * (1_000 - sum(first))


@pytest.mark.parametrize(("factor", "price"), [(FULL, 1.0), (HALF, 2.0), (750_000, 4 / 3), (333_333, 3.000003)])
def test_an_admitted_request_costs_one_divided_by_the_factor(factor: int, price: float):
    gate = ClassGate()
    gate.set(FULL, factor, floor=FULL // 10, reserve=0, seed=SEED)
    assert sum(gate.price(BY_WHOLE, 1) for _ in range(10_000)) / 10_000 == pytest.approx(price, abs=0.002)


def test_the_open_part_of_a_capacity_gives_way_before_the_reserve():
    assert open_factor(FULL, HALF) == FULL
    assert open_factor(750_000, HALF) == HALF
    assert open_factor(HALF, HALF) == 0
    assert open_factor(200_000, HALF) == 0
    assert open_factor(750_000, 0) == 750_000


def packs(*heads: int) -> list[bytes]:
    return [bytes((head,)) + bytes(24) for head in heads]


def prices_of(packed: bytes) -> list[float | None]:
    return [struct.unpack("<d", one[25:33])[0] if one[0] & PRICED else None for one in params_in(packed)]


def test_prices_apply_to_the_limits_that_follow_load_and_to_no_other():
    gate = ClassGate()
    charged = [Charged(0, BY_CLASS, 100), Charged(2, BY_WHOLE, 100)]
    pass_ = GatePass("users", "p", 0, 5, params=packs(1, 2, 3), charged=charged)
    assert pass_.packed(gate, 1) is None, "nothing to change while all is well"
    gate.set(750_000, HALF, floor=FULL // 5, reserve=0, seed=SEED)
    seen = Counter(pass_.packed(gate, 1) for _ in range(3_000))
    paid = {tuple(prices_of(packed)): count for packed, count in seen.items()}
    assert set(paid) == {(1.0, None, 2.0), (2.0, None, 2.0)}
    assert paid[2.0, None, 2.0] / 3_000 == pytest.approx(1 / 3, abs=0.01)
    assert all(is_priced(packed) for packed in seen)
    assert [one[:25] for one in params_in(encode_check(1, packs(1, 2, 3)))] == packs(1, 2, 3)
    assert not is_priced(encode_check(1, packs(1, 2, 3)))


def test_no_price_is_beyond_what_a_limit_can_hold():
    gate = ClassGate()
    gate.set(FULL // 5, FULL, floor=FULL // 5, reserve=0, seed=SEED)
    pass_ = GatePass("users", "p", 0, 5, params=packs(1), charged=[Charged(0, BY_CLASS, 2)])
    assert {tuple(prices_of(pass_.packed(gate, 1))) for _ in range(100)} == {(2.0,)}
    assert {tuple(prices_of(pass_.packed(gate, 3))) for _ in range(100)} == {(3.0,)}, "what never passes is told so"


def test_checks_of_different_costs_are_each_made_once_a_price(monkeypatch: pytest.MonkeyPatch):
    gate, made = ClassGate(), []
    pass_ = GatePass("users", "p", 0, 5, params=packs(1), charged=[Charged(0, BY_CLASS, 10**9)])
    make = GatePass.pack
    monkeypatch.setattr(GatePass, "pack", lambda self, gate, cost: made.append(cost) or make(self, gate, cost))
    for factor, price in ((HALF, 2), (FULL // 4, 4)):
        gate.set(factor, FULL, floor=FULL // 5, reserve=0, seed=SEED)
        for _ in range(3):
            for cost in (1, 2, 5):
                assert prices_of(pass_.packed(gate, cost)) == [cost * price]
    assert made == [1, 2, 5] * 2
    for cost in range(10_000):  # clients choose it
        pass_.packed(gate, cost)
    assert len(pass_.packs) <= MAX_COSTS


def test_clients_are_told_what_they_can_do_at_the_present_price():
    gate = ClassGate()
    gate.set(HALF, FULL, floor=FULL // 5, reserve=0, seed=SEED)
    pass_ = GatePass("users", "p", 0, 5, params=packs(1, 2), charged=[Charged(1, BY_CLASS, 100)])
    outcomes = [Outcome(True, 10, 0, 0, 0), Outcome(False, 1, 9, 9, 0)]
    assert [outcome.remaining for outcome in pass_.shown(gate, outcomes)] == [10, 0]
    assert pass_.denied_by_price(outcomes, 1, 1), "one unit was left, and one is what it asked for"
    assert not pass_.denied_by_price([outcomes[0], Outcome(False, 0, 9, 9, 0)], 1, 1), "nothing was left at any price"
    assert not pass_.denied_by_price(outcomes, 0, 1)


def factors(**members) -> BackendFactors:
    known = {
        "backend": "users", "policy": "p", "whole": HALF, "classes": {0: 0, 50: FULL}, "floor": FULL // 5,
        "reserve": 0, "demand": {}, "state": ControlState(),
    }  # fmt: skip
    return BackendFactors(**(known | members))


def test_gates_take_the_newest_factors_and_admit_all_where_there_are_none():
    gates = Gates()
    low, high = (gates.open(GatePass("users", "p", priority, 5)) for priority in (0, 50))
    other = gates.open(GatePass("reports", "p", 0, 5))
    gates.apply([factors()], 1)
    assert not low.admits(b"a", 1)
    assert high.admits(b"a", 1)
    assert other.admits(b"a", 1)
    late = gates.open(GatePass("users", "p", 0, 5))
    assert late is low
    assert not gates.open(GatePass("users", "p", 10, 5)).shed, "a class that nobody decided on is admitted"
    gates.apply([], 2)
    assert low.admits(b"a", 1)
    assert gates.offered()["users", 0] == 2
    assert gates.shed()["users", 0] == 1


def test_without_news_gates_open_step_by_step():
    gates = Gates()
    low = gates.open(GatePass("users", "p", 0, 5))
    gates.apply([factors()], 1)
    seen = []
    for _ in range(5):
        gates.relax(FULL // 4, 2, held=())
        seen.append(low.factor)
    assert seen == [FULL // 4, FULL // 2, FULL * 3 // 4, FULL, FULL]
