"""Quotas in whole units: the parts always sum to the whole, and nobody gets less than the exact part rounded down."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_plane.config.strict_limits import divided
from tidegate.contract.limits import PARTS, LimitRule, ShareStep
from tidegate.contract.shares import equal_shares, explicit_shares, split, units_of

NAMES = st.text("abcdefgh", min_size=1, max_size=4)


@given(
    st.integers(0, 10**12), st.dictionaries(NAMES, st.fractions(min_value=0, max_value=10**6), min_size=1, max_size=9)
)
def test_parts_sum_to_the_whole_and_are_at_least_exact_rounded_down(units: int, weights: dict[str, Fraction]) -> None:
    total = sum(weights.values(), Fraction(0))
    if total == 0:
        with pytest.raises(ValueError, match="nothing to split by"):
            split(units, weights)
        return
    parts = split(units, weights)
    assert sum(parts.values()) == units
    for name, part in parts.items():
        assert part >= int(units * weights[name] / total)


def test_the_odd_unit_goes_to_the_split_and_in_a_tie_to_the_first_name() -> None:
    assert equal_shares(10, ["us", "eu", "ap"]) == {"ap": 4, "eu": 3, "us": 3}
    assert split(10, {"a": Fraction(1), "b": Fraction(2)}) == {"a": 3, "b": 7}
    assert split(2, {"b": Fraction(3), "a": Fraction(1)}) == {"a": 1, "b": 1}
    assert split(100, {"a": Fraction(7), "b": Fraction(7), "c": Fraction(2)}) == {"a": 44, "b": 44, "c": 12}


def test_a_decimal_share_means_that_decimal() -> None:
    # as binary floats, 0.1 x 10 and 0.7 x 10 would not be 1 and 7
    assert explicit_shares(10, {"a": 0.1, "b": 0.2, "c": 0.7}, ["a", "b", "c"]) == {"a": 1, "b": 2, "c": 7}


def test_regions_without_a_share_get_nothing_and_no_regions_means_no_shares() -> None:
    assert explicit_shares(5, {"a": 1.0}, ["a", "b"]) == {"a": 5, "b": 0}
    assert equal_shares(5, []) == {}


@given(st.integers(0, 10**12), st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), st.booleans())
def test_units_of_parts_are_what_nodes_make_of_them(units: int, weights: list[int], is_cut: bool) -> None:
    fractions = {name: weight / sum(weights) for name, weight in zip("abc", weights, strict=True)}
    step = ShareStep(limit=PARTS, shares=explicit_shares(PARTS, fractions, "abc"))
    if is_cut:
        step = msgspec.structs.replace(step, shares={**step.shares, "a": 0})
    rule = LimitRule(id=1, name="r", limit=5, window_us=1_000_000, mode="regional")
    assert units_of(step, units) == divided(rule, units, None, (step,)).shares


@given(st.integers(0, 10**12), st.lists(st.integers(0, 999), min_size=1, max_size=8).filter(any))
def test_a_limits_parts_stand_for_the_same_units_as_the_weights_that_they_were_made_of(
    limit: int, weights: list[int]
) -> None:
    by_name = {f"r{number}": weight for number, weight in enumerate(weights)}
    step = ShareStep(limit=PARTS, shares=split(PARTS, by_name))
    assert units_of(step, limit) == split(limit, by_name)


@given(
    st.integers(0, 10**9), st.integers(3, 12), st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=2)
)
@example(10**9, 7, [0.3333334, 0.5])
def test_no_region_has_less_of_parts_than_they_are_worth(limit: int, digits: int, cuts: list[float]) -> None:
    """A cut is worth its parts, rounded down. So it must be within the division that it cuts."""
    low, high = sorted(round(cut * 10**digits) for cut in cuts)
    weights = {"a": Fraction(low), "b": Fraction(high - low), "c": Fraction(10**digits - high)}
    step = ShareStep(limit=PARTS, shares=split(PARTS, weights))
    found = units_of(step, limit)
    assert sum(found.values()) == limit
    assert all(found[name] >= part * limit // PARTS for name, part in step.shares.items())


def test_a_cut_of_a_limits_parts_is_rounded_down() -> None:
    step = ShareStep(limit=PARTS, shares={"a": PARTS // 3, "b": PARTS // 3})
    assert units_of(step, 60) == {"a": 19, "b": 19}
