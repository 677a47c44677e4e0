"""Strict buckets whose figures or shares change: loans, shares that rise while nobody asks."""

from math import ceil

import msgspec
import pytest
import redis

from data_plane.config.strict_limits import strict_params_of
from data_plane.store.strict_packing import Total, given, received
from tests.conformance.regions import Region
from tests.conformance.rules import MINUTE_US, SECOND_US, START_US, rule
from tidegate.contract.calendar import SKEW_US, cycle_us, grid_of, id_at
from tidegate.contract.limits import LimitRule, ShareStep, capacity

EAST, WEST = 11, 12
"""The epochs of both stores."""


@pytest.fixture
def client(store_url: str):
    with redis.Redis.from_url(store_url) as client:
        yield client


def bucket(limit: int, burst: int) -> LimitRule:
    shares = {"east": limit // 2, "west": limit // 2}
    return rule("token_bucket", limit, MINUTE_US, mode="strict", burst=burst, shares=shares)


def region(client: "redis.Redis", name: str, rule: LimitRule, now_us: int = START_US) -> Region:
    found = Region(client, name, rule, now_us)
    found.join()
    return found


def lend(lender: Region, borrower: Region) -> int:
    """The borrower asks for as much as it can get. Returns the capacity that it got."""
    return take(lender, borrower, give(lender, borrower))


def give(lender: Region, borrower: Region) -> Total:
    """All that the lender gave to a borrower that knows of nothing."""
    id, scale = id_at(grid_of(borrower.rule), borrower.now_us), strict_params_of(borrower.rule, borrower.name, 0).scale
    step = strict_params_of(lender.rule, lender.name, 0).give(borrower.name, EAST, id, 0, Total(), 0, 10**6, scale)
    return given(lender.step(step)).total


def take(lender: Region, borrower: Region, total: Total) -> int:
    """Returns the capacity that the borrower got by it."""
    id = id_at(grid_of(borrower.rule), borrower.now_us)
    step = strict_params_of(borrower.rule, borrower.name, 0).receive(lender.name, WEST, 1, id, total)
    return received(borrower.step(step)).gained


@pytest.mark.parametrize(("before", "after"), [((60, 6_000), (600, 6_000)), ((600, 6_000), (60, 6_000))])
def test_a_limit_whose_epochs_get_another_length_keeps_what_was_used(client, before, after):
    east = region(client, "east", bucket(*before))
    assert cycle_us(east.rule) != cycle_us(bucket(*after))
    assert east.hit(2_000).remaining == 1_000
    east.rule = bucket(*after)
    assert east.left() == 1_000
    assert east.hit(400).remaining == 600
    east.now_us += cycle_us(east.rule)
    assert east.left() == 3_000


@pytest.mark.parametrize(("before", "after"), [((60, 6_000), (600, 6_000)), ((600, 6_000), (60, 6_000))])
def test_loans_end_with_epochs_of_another_length(client, before, after):
    """The lender may know the new limit while the borrower still spends by the one before."""
    east, west = region(client, "east", bucket(*before)), region(client, "west", bucket(*before))
    lent = lend(west, east)
    assert (east.left(), west.left()) == (3_000 + lent, 3_000 - lent)
    over_us = START_US - START_US % cycle_us(east.rule) + cycle_us(east.rule)
    east.rule = west.rule = bucket(*after)
    east.hit(1)
    west.hit(1)
    assert (east.left(), west.left()) == (2_999, 3_000 - lent - 1)
    west.now_us = over_us + SKEW_US - 1
    west.hit(1)
    assert west.left() <= 3_000 - lent
    west.now_us += 2 * cycle_us(west.rule)
    assert west.left() == 3_000


@pytest.mark.parametrize("after", [(60, 200), (60, 50), (30, 100)])
def test_nothing_is_lent_while_a_change_of_the_bucket_is_on_its_way(client, after):
    """A part of one size is more of another: by it the borrower would have more than the lender gave up."""
    east, west = region(client, "east", bucket(60, 100)), region(client, "west", bucket(60, 100))
    west.rule = bucket(*after)
    assert lend(west, east) == 0
    west.rule, east.rule = east.rule, west.rule
    assert lend(west, east) == 0
    west.rule = east.rule
    assert lend(west, east) > 0


def test_a_gift_that_was_lost_is_not_given_again_as_part_of_another_size(client):
    east, west = region(client, "east", bucket(60, 100)), region(client, "west", bucket(60, 100))
    lost = give(west, east)
    assert lost.units > 0
    assert give(west, east) == lost
    east.rule = west.rule = bucket(60, 50)
    again = give(west, east)
    assert 0 < again.units < lost.units
    assert take(west, east, again) == again.units
    east.now_us = west.now_us = START_US + MINUTE_US
    assert (east.left(), west.left()) == (25 + again.units, 25 - again.units - ceil(lost.units / 2))


def test_a_share_that_rises_brings_no_tokens_to_a_bucket_that_nobody_used(client):
    whole = bucket(60, 100)
    starts_us = START_US - START_US % cycle_us(whole) + cycle_us(whole)
    steps = (
        ShareStep(limit=60, shares={"east": 20, "west": 80}),
        ShareStep(from_us=starts_us, limit=60, shares={"east": 80, "west": 20}),
    )
    moved = msgspec.structs.replace(whole, steps=steps)
    assert capacity(moved) == 100
    west = region(client, "west", moved, starts_us - SECOND_US)
    east = region(client, "east", moved, starts_us - SECOND_US)
    assert west.hit(80).allowed
    assert east.left() == 20
    east.now_us = starts_us + SKEW_US
    assert east.left() == 20, "the other region has spent the rest a moment ago"
    east.now_us += 50 * SECOND_US
    assert east.left() == 20 + 40
    east.now_us += 50 * SECOND_US
    assert east.left() == 80


@pytest.mark.parametrize("burst", [10, 200])
@pytest.mark.parametrize("knowing", [("east",), ("west",), ("east", "west")])
def test_a_loan_is_the_same_part_of_a_bucket_of_another_size(client, burst, knowing):
    """A region may fill by the new size while the other one still fills by the size before."""
    before, after = bucket(100, 100), bucket(100, burst)
    after = msgspec.structs.replace(after, shares={"east": 50, "west": 50})
    assert cycle_us(after) == cycle_us(before)
    east, west = region(client, "east", before), region(client, "west", before)
    assert lend(west, east) == 25
    parts = 0
    for one in (east, west):
        one.hit(one.left())
        one.rule = after if one.name in knowing else before
        one.hit(1)
        one.now_us += 2 * MINUTE_US
        parts += one.left() / capacity(one.rule)
    assert 0.8 <= parts <= 1
