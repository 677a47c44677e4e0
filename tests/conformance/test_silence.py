"""What a region does while it does not hear another one: that one keeps its share of what is left."""

import pytest
import redis

from data_plane.config.limit_resolution import RegionFacts
from tests.conformance.regions import Region
from tests.conformance.rules import HOUR_US, SECOND_US, START_US, rule

WINDOWS = ["fixed_window", "sliding_window", "sliding_log"]


@pytest.fixture
def client(store_url: str):
    with redis.Redis.from_url(store_url) as client:
        yield client


def pair(client: "redis.Redis", algorithm: str, limit: int, window_us: int = HOUR_US):
    shared = rule(algorithm, limit, window_us, mode="shared")
    return Region(client, "east", shared, START_US), Region(client, "west", shared, START_US)


@pytest.mark.parametrize("algorithm", WINDOWS)
def test_a_silent_peer_keeps_its_share_of_what_was_left(client, algorithm: str):
    east, west = pair(client, algorithm, limit=100)
    # so late in the window that the one before weighs nothing any more
    east.now_us += HOUR_US - 1_000
    west.now_us += HOUR_US - 1_000
    east.hit(40)
    west.merge("east/1", east.collect())
    west.region_facts = RegionFacts(unreachable=(("east", START_US),))
    assert west.left() in {29, 30}, "half of the 60 that are left"
    assert west.hit(29).allowed
    denied = west.hit(2)
    assert not denied.allowed
    assert denied.retry_us > 0
    west.region_facts = RegionFacts()
    assert west.left() == 31, "heard again: nothing is kept any more"


def test_what_a_silent_peer_says_late_does_not_shrink_what_is_kept_for_it(client):
    east, west = pair(client, "fixed_window", limit=100)
    west.region_facts = RegionFacts(unreachable=(("east", START_US),))
    east.hit(50)
    assert west.merge("east/1", east.collect()) == "merged"
    assert west.left() == 0, "50 are known to be gone, 50 more are kept: it was not heard completely"


def test_each_window_of_a_silence_is_divided_anew(client):
    _, west = pair(client, "fixed_window", limit=100)
    west.region_facts = RegionFacts(unreachable=(("east", START_US),))
    assert west.hit(50).allowed
    assert not west.hit(1).allowed
    west.now_us += HOUR_US
    assert west.left() == 50


@pytest.mark.parametrize("algorithm", WINDOWS)
@pytest.mark.parametrize("limit", [60, 200])
def test_a_limit_that_changes_meanwhile_is_divided_as_it_is(client, algorithm: str, limit: int):
    east, west = pair(client, algorithm, limit=100)
    east.region_facts = RegionFacts(unreachable=(("west", START_US),))
    west.region_facts = RegionFacts(unreachable=(("east", START_US),))
    for one in (east, west):
        one.now_us += HOUR_US - 1_000  # the window before weighs nothing any more
        assert one.hit(20).allowed
        one.rule = rule(algorithm, limit, HOUR_US, mode="shared")
    rounded_up = 1 if algorithm == "sliding_log" else 0  # a log still weighs the window before
    assert [east.left(), west.left()] == [limit // 2 - 20 - rounded_up] * 2


def test_a_bucket_fills_by_the_share_of_who_is_heard(client):
    _, west = pair(client, "token_bucket", limit=100, window_us=100 * SECOND_US)
    west.hit(100)
    west.region_facts = RegionFacts(unreachable=(("east", START_US),))
    assert west.hit(1).retry_us == 2 * SECOND_US
    west.now_us += 10 * SECOND_US
    assert west.left() == 5


@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket"])
def test_what_was_taken_beyond_a_bucket_in_a_cut_is_owed_by_both_once_it_is_over(client, algorithm: str):
    east, west = pair(client, algorithm, limit=100, window_us=100 * SECOND_US)
    east.region_facts = RegionFacts(unreachable=(("west", START_US),))
    west.region_facts = RegionFacts(unreachable=(("east", START_US),))
    assert east.hit(80).allowed
    assert west.hit(80).allowed
    of_east, of_west = east.collect(), west.collect()
    west.merge("east/1", of_east)  # the counts come first, and then the word that the cut is over
    east.region_facts = west.region_facts = RegionFacts()
    west_waits_us = west.hit(1).retry_us
    east.hit(0)
    east.merge("west/1", of_west)  # the other way round
    over = 60 if algorithm == "token_bucket" else 59  # a queue holds one more
    assert [west_waits_us, east.hit(1).retry_us] == [(over + 1) * SECOND_US] * 2
