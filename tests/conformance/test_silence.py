"""What a region does while it does not hear another one: that one keeps its share of what is left."""

import random

import pytest
import redis

from contract.counts import Cell
from data_plane.domain.regions import counts
from data_plane.domain.regions.book import EMPTY
from data_plane.domain.regions.book import Cell as Figures
from data_plane.domain.regions.frame import frame_of
from data_plane.domain.regions.quotas import Quota
from data_plane.domain.regions.rules import DEFAULT_TIMING
from data_plane.domain.regions.standing import Standing
from data_plane.domain.regions.terms import Terms
from tests.conformance.regions import Region
from tests.conformance.rules import HOUR_US, MINUTE_US, SECOND_US, START_US, rule

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
    west.standing = Standing(silent=(("east", START_US),))
    assert west.left() in {29, 30}, "half of the 60 that are left"
    assert west.hit(29).allowed
    denied = west.hit(2)
    assert not denied.allowed
    assert denied.retry_us > 0
    west.standing = Standing()
    assert west.left() == 31, "heard again: nothing is kept any more"


def test_what_a_silent_peer_says_late_does_not_shrink_what_is_kept_for_it(client):
    east, west = pair(client, "fixed_window", limit=100)
    west.standing = Standing(silent=(("east", START_US),))
    east.hit(50)
    assert west.merge("east/1", east.collect()) == "merged"
    assert west.left() == 0, "50 are known to be gone, 50 more are kept: it was not heard completely"


def test_each_window_of_a_silence_is_divided_anew(client):
    _, west = pair(client, "fixed_window", limit=100)
    west.standing = Standing(silent=(("east", START_US),))
    assert west.hit(50).allowed
    assert not west.hit(1).allowed
    west.now_us += HOUR_US
    assert west.left() == 50


def test_a_bucket_fills_by_the_share_of_who_is_heard(client):
    _, west = pair(client, "token_bucket", limit=100, window_us=100 * SECOND_US)
    west.hit(100)
    west.standing = Standing(silent=(("east", START_US),))
    assert west.hit(1).retry_us == 2 * SECOND_US
    west.now_us += 10 * SECOND_US
    assert west.left() == 5


@pytest.mark.parametrize("algorithm", WINDOWS)
@pytest.mark.parametrize("seed", range(4))
def test_a_silence_never_admits_what_the_pure_rules_would_not(client, algorithm: str, seed: int):
    rnd = random.Random(seed)
    limit, window_us = 60, MINUTE_US
    shared = rule(algorithm, limit, window_us, mode="shared")
    west = Region(client, f"west{seed}", shared, START_US, regions=3)
    terms = Terms(
        algorithm=shared.algorithm, frame=frame_of(shared, DEFAULT_TIMING),
        schedule=(Quota(-(2**60), 0, limit),), incarnation=1, region="west",
        shares=(("east", 1), ("south", 1), ("west", 1)),
    )  # fmt: skip
    state, book = None, EMPTY
    taken: dict[str, int] = {}
    for _ in range(150):
        west.now_us += rnd.choice([0, 1_000_000, 3_000_000, 25_000_000])
        if rnd.random() < 0.2:
            names = rnd.choice([(), ("east",), ("east", "south")])
            since = dict(west.standing.silent)
            west.standing = Standing(silent=tuple((name, since.get(name, west.now_us)) for name in names))
        silent = tuple(name for name, _ in west.standing.silent)
        id = west.now_us // window_us
        if rnd.random() < 0.3:
            peer = rnd.choice(["east", "south"])
            taken[f"{peer}{id}"] = taken.get(f"{peer}{id}", 0) + rnd.randrange(8)
            cell = taken[f"{peer}{id}"]
            west.merge(f"{peer}/1", [Cell(west.key, id, cell)])
            merged = counts.merge_cell(terms, state, book, silent, (peer, 1, id), Figures(cell), west.now_us)
            if merged is not None:
                state, book = merged
            continue
        cost = rnd.randrange(1, 9)
        expected = counts.decide_count(terms, state, book, silent, cost, west.now_us)
        found = west.hit(cost)
        if found.allowed:
            assert expected.allowed, (algorithm, cost, silent)
            state = expected.state
        elif expected.allowed and algorithm == "fixed_window":
            raise AssertionError("a fixed window is the same to the unit")
        book = expected.book or book
