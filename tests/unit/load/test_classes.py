"""Who is admitted: the lowest class gives way first, the same clients for an hour, and prices are exact."""

from hypothesis import given
from hypothesis import strategies as st

from data_plane.config.load_gate import (
    ALL,
    FULL,
    HOUR_US,
    charge_of,
    cohort_of,
    hour_seed,
    spread,
    threshold_of,
)
from data_plane.load.controller import basis_of, share_out

DEMAND = st.dictionaries(st.integers(-10, 100), st.integers(0, 10**9), min_size=1, max_size=8)


def test_the_lowest_class_gives_way_first():
    demand = {0: 600, 10: 300, 50: 100}
    assert share_out(1000, demand, 0) == {0: FULL, 10: FULL, 50: FULL}
    assert share_out(700, demand, 0) == {0: FULL // 2, 10: FULL, 50: FULL}
    assert share_out(250, demand, 0) == {0: 0, 10: FULL // 2, 50: FULL}
    assert share_out(50, demand, 0) == {0: 0, 10: 0, 50: FULL // 2}
    assert share_out(0, demand, 0) == {0: 0, 10: 0, 50: 0}


def test_a_floor_is_kept_before_any_class_is_served():
    assert share_out(250, {0: 600, 50: 400}, FULL // 10) == {0: FULL // 10, 50: FULL // 10 + 150 * FULL // 400}


def test_who_asks_for_nothing_is_not_shut_out_while_there_is_room():
    assert share_out(1000, {0: 0, 50: 1000}, 0) == {0: FULL, 50: FULL}
    assert share_out(900, {0: 1000, 10: 0, 50: 0}, 0)[50] == FULL


@given(demand=DEMAND, part=st.integers(0, FULL), floor=st.integers(0, FULL // 2))
def test_no_more_is_admitted_than_allowed_beyond_the_floors(demand, part, floor):
    allowed = sum(demand.values()) * part // FULL
    factors = share_out(allowed, demand, floor)
    assert all(0 <= factor <= FULL for factor in factors.values())
    admitted = sum(factors[one] * asked // FULL for one, asked in demand.items())
    floors = sum(floor * asked // FULL for asked in demand.values())
    rounding = len(demand)
    assert admitted <= max(allowed, floors) + rounding
    below_full = [one for one, factor in factors.items() if factor < FULL and demand[one]]
    for one in below_full:  # a class gives way only when all below it are at their floor
        assert all(factors[lower] <= floor + 1 for lower in demand if lower < one and demand[lower] > FULL)


def test_a_factor_is_a_share_of_the_smaller_of_demand_and_capacity():
    assert basis_of(300, None) == 300
    assert basis_of(300, 100) == 100
    assert basis_of(30, 100) == 30


def test_cohorts_stay_for_an_hour_and_then_change():
    clients = [f"client-{number}".encode() for number in range(2_000)]
    noon = 1_900_000_000 * 1_000_000 // HOUR_US * HOUR_US
    first, later, next_hour = hour_seed(noon), hour_seed(noon + HOUR_US - 1), hour_seed(noon + HOUR_US)
    assert first == later != next_hour
    half = threshold_of(FULL // 2)
    admitted = {client for client in clients if cohort_of(client, first) < half}
    assert 900 < len(admitted) < 1_100
    then = {client for client in clients if cohort_of(client, next_hour) < half}
    assert 400 < len(admitted & then) < 600, "another hour, others are shed"
    more = {client for client in clients if cohort_of(client, first) < threshold_of(FULL * 3 // 4)}
    assert admitted < more, "raising the factor lets more in and puts nobody out"


def test_thresholds_admit_nobody_and_everybody_at_the_ends():
    assert threshold_of(0) == 0
    assert threshold_of(FULL) == ALL


@given(cost=st.integers(0, 10**6), factor=st.integers(10_000, FULL), requests=st.integers(100, 3_000))
def test_prices_are_exact_on_average_for_every_part_of_the_requests(cost, factor, requests):
    whole, part = charge_of(cost, factor)
    for step in (1, 2, 3):  # all of them, every second, every third: nobody who comes regularly pays more
        paid = [whole + (spread(number) < part) for number in range(0, requests * step, step)]
        assert abs(sum(paid) / requests - cost * FULL / factor) < 12 / requests + 1e-6


def test_nothing_costs_more_at_full():
    assert charge_of(7, FULL) == (7, 0)
    assert charge_of(1, FULL // 2) == (2, 0)
    assert charge_of(0, FULL // 3) == (0, 0)
