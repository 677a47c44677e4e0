"""Auto shares follow demand: with a floor, part of the way, and not for trifles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.quotas.rebalancing import Balancing, balance

HALVES = {"eu": 0.5, "us": 0.5}


def test_half_of_the_way_is_gone() -> None:
    found = balance(HALVES, {"us": 900, "eu": 100}, Balancing(floor=0.0, damping=0.5))
    assert found.shares == {"eu": 0.3, "us": 0.7}
    assert found.reason == "Demand is eu 10%, us 90%: eu 50% to 30%, us 50% to 70%."


def test_a_region_without_demand_keeps_the_floor() -> None:
    shares = HALVES
    for _ in range(30):
        shares = balance(shares, {"us": 1000, "eu": 0}, Balancing(floor=0.1, min_change=0.0001)).shares or shares
    assert shares["eu"] == pytest.approx(0.1, abs=0.001)


def test_trifles_and_silence_move_nothing() -> None:
    assert balance(HALVES, {"us": 52, "eu": 48}, Balancing()).shares is None
    assert balance(HALVES, {}, Balancing()) == (None, "No demand was seen.")
    assert balance(HALVES, {"us": 0, "eu": 0}, Balancing()).shares is None
    assert balance({"us": 1.0}, {"us": 5}, Balancing()).shares is None


def test_a_region_of_which_nothing_is_known_keeps_its_share() -> None:
    found = balance({"a": 0.4, "b": 0.4, "c": 0.2}, {"a": 1000, "b": 0}, Balancing(damping=1.0))
    assert found.shares is not None
    assert found.shares["c"] == 0.2
    assert found.shares["a"] == pytest.approx(0.75)
    assert "Nothing is known of c." in found.reason


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 100), min_size=2),
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1e12)),
)
def test_shares_always_sum_to_one_and_none_is_negative(weights: dict[str, int], demand: dict[str, float]) -> None:
    current = {region: weight / sum(weights.values()) for region, weight in weights.items()}
    shares = balance(current, demand, Balancing()).shares
    if shares is not None:
        assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
        assert min(shares.values()) >= 0
