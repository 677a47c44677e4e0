"""What peers are told of strict limits with an overdraft, and what they make of it: the scripts on a real server."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from contract.counts import Cell
from contract.limits import LimitRule
from data_plane.domain.regions.standing import Standing
from tests.conformance.regions import Region

WINDOW_US = 10_000_000
WINDOW = 170_000_000
HEARD = Standing(rights=True, looked=True)
RULE = LimitRule(
    id=1, name="exact", algorithm="fixed_window", limit=100, window_us=WINDOW_US, mode="strict",
    shares={"east": 50, "west": 50}, overdraft_percent=20, since_us=2**52,
)  # fmt: skip


@pytest.fixture
def east(valkey_server: Any) -> Iterator[Region]:
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
        region = Region(client, "east", RULE, WINDOW * WINDOW_US + 1_000)
        region.standing = HEARD
        region.join()
        yield region


def cell(region: Region, taken: int, window: int = WINDOW) -> Cell:
    return Cell(region.key, window, taken)


def test_what_is_taken_is_told_until_every_peer_knows_it(east: Region):
    assert east.hit(30).allowed
    assert east.is_dirty()
    assert east.collect() == (cell(east, 30),)
    assert east.settle(east.collect()) == 1
    assert not east.is_dirty()
    assert east.collect() == ()
    now_us = east.now_us
    assert east.hit(5).allowed
    assert east.settle((cell(east, 30),)) == 0, "it changed since it was told"
    assert east.give_back(5, now_us) == 1
    assert east.collect() == (cell(east, 30),)
    east.now_us += WINDOW_US
    east.hit(1)
    assert east.collect() == (cell(east, 30), cell(east, 1, WINDOW + 1))


def test_nobody_goes_beyond_what_all_took_as_told(east: Region):
    assert east.merge("west/a", [cell(east, 45), cell(east, 20, WINDOW + 1)]) == "merged"
    assert east.merge("west/a", [cell(east, 40)]) == "known"
    assert east.merge("west/b", [cell(east, 2)]) == "merged", "another life of its store"
    assert east.merge("west/a", [cell(east, 1, WINDOW + 2)]) == "ahead"
    assert not east.hit(54).allowed, "45 + 2 + 54 are more than 100"
    assert east.hit(53).remaining == -3, "three beyond what it owns"
    assert east.merge("west/a", [cell(east, 50)]) == "merged"
    assert east.most_over == 5
    east.now_us += WINDOW_US
    assert east.left() == 47, "repaid"
    assert not east.hit(58).allowed
    assert east.hit(57).remaining == -10, "20 of the others were told ahead: 77 are less than 100"


def test_who_does_not_hear_all_tells_and_does_not_overdraw(east: Region):
    east.standing = HEARD._replace(silent=(("west", 5),))
    assert not east.hit(51).allowed
    assert east.hit(50).allowed
    assert east.is_dirty()
    east.standing = Standing(rights=True)
    assert not east.hit(1).allowed, "nor who has not looked yet"


def test_a_store_that_nobody_joined_takes_nothing(east: Region):
    east._client.flushall()
    assert east.merge("west/a", [cell(east, 5)]) == "ahead"
