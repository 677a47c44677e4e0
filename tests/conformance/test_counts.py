"""What regions tell each other: absolute counts, merged so that repeats, reordering and loss are harmless."""

import random

import msgspec
import pytest
import redis

from tests.conformance.regions import RESEND_US, Region
from tests.conformance.rules import HOUR_US, MINUTE_US, SECOND_US, START_US, rule
from tidegate.contract.counts import Cell

WINDOWS = ["fixed_window", "sliding_window", "sliding_log"]
ALL = [*WINDOWS, "token_bucket"]


@pytest.fixture
def client(store_url: str):
    with redis.Redis.from_url(store_url) as client:
        yield client


def pair(client: "redis.Redis", algorithm: str, limit: int = 10, window_us: int = HOUR_US, **members):
    shared = rule(algorithm, limit, window_us, mode="shared", **members)
    return Region(client, "east", shared, START_US), Region(client, "west", shared, START_US)


@pytest.mark.parametrize("algorithm", ALL)
def test_what_one_region_took_counts_in_the_other(client, algorithm: str):
    east, west = pair(client, algorithm)
    east.hit(6)
    assert west.merge("east/1", east.collect()) == "merged"
    assert west.left() == 4
    assert not west.hit(5).allowed
    assert west.hit(4).remaining == 0
    assert east.left() == 4


@pytest.mark.parametrize("algorithm", ALL)
def test_repeats_and_older_news_change_nothing(client, algorithm: str):
    east, west = pair(client, algorithm)
    east.hit(2)
    older = east.collect()
    east.hit(3)
    newer = east.collect()
    assert west.merge("east/1", newer) == "merged"
    assert west.merge("east/1", newer) == "known"
    assert west.merge("east/1", older) == "known"
    assert west.left() == 5


@pytest.mark.parametrize("algorithm", ALL)
def test_incarnations_of_a_region_add_up(client, algorithm: str):
    east, west = pair(client, algorithm)
    west.merge("east/1", [Cell(b"", _window(east), 2)])
    west.merge("east/2", [Cell(b"", _window(east), 3)])
    assert west.left() == 5


@pytest.mark.parametrize("algorithm", [*ALL, "leaky_bucket"])
def test_what_is_given_back_is_free_again_everywhere(client, algorithm: str):
    east, west = pair(client, algorithm)
    full = east.left()
    east.hit(6)
    west.merge("east/1", east.collect())
    assert east.unmark() == 1
    assert not east.is_dirty()
    assert east.give_back(6, START_US) == 1
    assert east.left() == full
    assert east.is_dirty()
    assert west.merge("east/1", east.collect()) == "merged"
    assert west.left() == full


@pytest.mark.parametrize("algorithm", [*ALL, "leaky_bucket"])
def test_a_regional_limit_gives_back_too(client, algorithm: str):
    region, _ = pair(client, algorithm)
    region.rule = msgspec.structs.replace(region.rule, mode="regional")
    full = region.left()
    region.hit(3)
    region.hit(2)
    assert region.give_back(2, START_US) == 1
    assert region.left() == full - 3
    assert not region.is_dirty()


@pytest.mark.parametrize("algorithm", [*ALL, "leaky_bucket"])
def test_a_give_back_whose_answer_was_lost_comes_again_and_credits_nothing(client, algorithm: str):
    region, _ = pair(client, algorithm)
    region.rule = msgspec.structs.replace(region.rule, mode="regional")
    full = region.left()
    region.hit(2)
    region.hit(2)
    assert [region.give_back(2, START_US, b"one"), region.give_back(2, START_US, b"one")] == [1, -1]
    assert region.left() == full - 2


@pytest.mark.parametrize("mode", ["regional", "shared"])
@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket"])
def test_a_charge_after_a_change_finds_what_a_check_would_find(client, algorithm: str, mode: str):
    """A bucket keeps its tokens, a queue those that wait."""
    region, _ = pair(client, algorithm)
    region.rule = msgspec.structs.replace(region.rule, mode=mode)
    full = region.left()
    region.hit(3)
    region.rule = msgspec.structs.replace(region.rule, burst=20)
    found = region.left()
    assert found == (full - 3 if algorithm == "token_bucket" else 21 - 3)
    assert region.charge(1) == 1
    assert region.left() == found - 1


@pytest.mark.parametrize("algorithm", WINDOWS)
def test_nothing_is_given_back_to_another_window(client, algorithm: str):
    region, _ = pair(client, algorithm)
    region.hit(6)
    region.now_us += 2 * HOUR_US
    region.hit(5)
    assert region.give_back(5, START_US) == 0
    assert region.left() == 5


@pytest.mark.parametrize("algorithm", ALL)
def test_a_key_is_unmarked_only_as_collected(client, algorithm: str):
    region, _ = pair(client, algorithm)
    assert not region.is_dirty()
    region.hit(1)
    assert region.is_dirty()
    assert region.collect()[0].taken == 1
    region.hit(1)
    assert region.unmark() == 0
    assert region.is_dirty()
    assert region.collect()[0].taken == 2
    assert region.unmark() == 1
    assert not region.is_dirty()
    assert region.left() == 8
    region.hit(1)
    assert region.is_dirty()


def test_a_marked_key_is_not_marked_again(client):
    region, _ = pair(client, "sliding_window", limit=1_000)
    region.hit(1)
    client.delete(region.slice)
    region.hit(1)
    assert not region.is_dirty(), "the flag in the state spares hot keys a ZADD"


@pytest.mark.parametrize("algorithm", [*ALL, "leaky_bucket"])
def test_little_news_waits_and_news_that_matters_is_due_at_once(client, algorithm: str):
    region, _ = pair(client, algorithm, limit=640)
    taken = 0
    for cost, is_pressing in ((1, False), (30, False), (30, False), (10, True), (50, False), (20, True)):
        before_us = region.due_us()
        region.now_us += 1_000
        region.hit(cost)
        taken += cost
        step = 64 if 640 - taken >= 512 else 32
        assert is_pressing == (taken // step > (taken - cost) // step), "as the test has it"
        due_us = region.due_us()
        if is_pressing:
            assert due_us == region.now_us
            assert [cell.taken for cell in region.collect_due()] == [taken]
            assert region.unmark() == 1
        else:
            assert due_us == (before_us or region.now_us + 800_000), "the first of them says when"
            assert region.collect_due() == ()
    region.hit(1)
    region.now_us += 800_000
    assert len(region.collect_due()) == 1
    assert region.collect_due() == (), "it is on its way"
    region.now_us += RESEND_US + 100_000
    assert len(region.collect_due()) == 1, "nobody said that it arrived"


def test_a_key_that_is_due_is_not_put_off_by_more_news(client):
    region, _ = pair(client, "fixed_window", limit=10)
    region.hit(1)
    due_us = region.due_us()
    assert due_us == region.now_us
    region.now_us += 5_000_000
    region.hit(1)
    assert region.due_us() == due_us


def test_marks_of_a_clock_that_was_set_back_are_due(client):
    region, _ = pair(client, "fixed_window", limit=1_000, window_us=366 * 24 * HOUR_US)
    region.now_us += HOUR_US
    region.hit(1)
    region.now_us -= HOUR_US
    assert len(region.collect_due()) == 1


def test_what_nodes_before_the_upgrade_marked_anew_stays_marked(client):
    """They put a mark where there is none, and leave one that waits for its acknowledgement as it is."""
    region, _ = pair(client, "fixed_window", limit=1_000)
    region.hit(1)
    region.collect()
    waits_us = region.due_us()
    region.hit(1)
    client.zadd(region.slice, {region.key: waits_us})
    assert region.unmark() == 0
    assert region.due_us() == region.now_us


@pytest.mark.parametrize("algorithm", ALL)
def test_gone_state_leaves_the_dirty_set(client, algorithm: str):
    region, _ = pair(client, algorithm, window_us=SECOND_US)
    region.hit(1)
    region.now_us += MINUTE_US
    assert region.collect() == ()
    assert not region.is_dirty()


@pytest.mark.parametrize("algorithm", ["sliding_window", "sliding_log"])
def test_the_previous_window_counts_with_its_weight(client, algorithm: str):
    east, west = pair(client, algorithm)
    east.hit(8)
    cells = east.collect()
    west.now_us += HOUR_US + HOUR_US // 2
    assert west.merge("east/1", cells) == "merged"
    denied = west.hit(7)
    assert denied.remaining == 6
    # 8 x w <= 3 from five eighths of the window on.
    assert denied.retry_us == HOUR_US // 8
    west.now_us += denied.retry_us - 1
    assert not west.hit(7).allowed
    west.now_us += 1
    assert west.hit(7).allowed


def test_own_log_and_remote_weight_leave_together(client):
    east, west = pair(client, "sliding_log")
    west.hit(4)
    west.merge("east/1", [Cell(b"", _window(east), 6)])
    west.now_us += HOUR_US // 2
    for cost in range(1, 11):
        denied = west.hit(cost)
        later_us = west.now_us
        west.now_us = later_us + denied.retry_us - 1
        probe = Region(client, "west", west.rule, west.now_us)
        assert not _would_pass(client, probe, cost)
        probe.now_us += 1
        assert _would_pass(client, probe, cost)
        west.now_us = later_us


def test_counts_roll_over_with_the_window(client):
    east, west = pair(client, "fixed_window")
    east.hit(6)
    west.merge("east/1", east.collect())
    west.now_us += HOUR_US
    assert west.left() == 10
    east.now_us += HOUR_US
    east.hit(1)
    first, second = east.collect()
    assert (first.taken, second.taken, second.window - first.window) == (6, 1, 1)
    assert west.merge("east/1", [first, second]) == "merged"
    assert west.left() == 9


@pytest.mark.parametrize("algorithm", WINDOWS)
def test_a_peer_whose_clock_is_ahead_is_not_lost(client, algorithm: str):
    east, west = pair(client, algorithm)
    east.now_us = START_US + HOUR_US
    west.now_us = START_US + HOUR_US - 1
    west.hit(1)
    east.hit(6)
    assert west.merge("east/1", east.collect()) == "merged"
    assert west.left() == 9
    west.now_us += HOUR_US // 2
    assert west.left() == 10 - 6 - (0 if algorithm == "fixed_window" else 1)
    assert west.merge("east/1", [Cell(b"", _window(east) + 2, 1)]) == "ahead"


@pytest.mark.parametrize("algorithm", WINDOWS)
def test_windows_long_over_are_ignored(client, algorithm: str):
    east, west = pair(client, algorithm)
    east.hit(6)
    west.now_us += 2 * HOUR_US
    assert west.merge("east/1", east.collect()) == "known"
    assert west.left() == 10


def test_ids_never_go_back_when_merging(client):
    east, west = pair(client, "sliding_window")
    west.now_us += HOUR_US
    west.hit(3)
    west.now_us -= HOUR_US
    east.hit(6)
    assert west.merge("east/1", east.collect()) == "merged"
    assert west.hit(0).remaining == 1


def test_remote_growth_drives_a_bucket_no_lower_than_its_floor(client):
    _, west = pair(client, "token_bucket", limit=10, window_us=10 * SECOND_US)
    west.hit(1)
    west.merge("east/1", [Cell(b"", START_US, 1)])
    west.merge("east/1", [Cell(b"", START_US, 500)])
    west.merge("east/1", [Cell(b"", START_US, 1_000)])
    denied = west.hit(1)
    assert denied.retry_us == 11 * SECOND_US, "from -10 tokens to 1, one a second"
    west.merge("east/1", [Cell(b"", START_US, 1_001)])
    assert west.hit(1).retry_us == 11 * SECOND_US
    west.now_us += denied.retry_us
    assert west.hit(1).remaining == 0


def test_a_new_store_owes_no_more_of_a_bucket_than_a_peer_can_owe(client):
    """East took half of what the bucket gains, for hours. A new store denied for nearly two more hours."""
    shared = rule("token_bucket", 3_600, HOUR_US, mode="shared")
    east = Region(client, "east", shared, START_US, regions=3)
    for _ in range(2_000):
        east.now_us += 10 * SECOND_US
        assert east.hit(5).allowed
    west = Region(client, "west", shared, east.now_us, regions=3)
    west.merge("east/1", east.collect())
    assert west.hit(1).retry_us == SECOND_US


def test_after_a_long_cut_no_more_is_owed_of_a_bucket_than_a_peer_can_owe(client):
    """East took half of what the bucket gains, for more than an hour, and west nothing."""
    shared = rule("token_bucket", 3_600, HOUR_US, mode="shared")
    east, west = (Region(client, name, shared, START_US, regions=3) for name in ("east", "west"))
    east.hit(5)
    west.merge("east/1", east.collect())
    for _ in range(1_000):
        east.now_us += 10 * SECOND_US
        assert east.hit(5).allowed
    west.now_us = east.now_us
    west.merge("east/1", east.collect())
    assert west.hit(1).retry_us == 6 * SECOND_US, "from -5 tokens to 1, one a second"


def test_a_bucket_born_again_counts_anew(client):
    _, west = pair(client, "token_bucket")
    west.merge("east/1", [Cell(b"", START_US, 2)])
    west.merge("east/1", [Cell(b"", START_US + SECOND_US, 3)])
    assert west.left() == 5
    assert west.merge("east/1", [Cell(b"", START_US, 9)]) == "known"


def test_what_a_region_took_of_a_bucket_counts_once_however_long_another_region_uses_it(client):
    """What others take keeps a region's own counts alive, so the others must not forget that they know them."""
    east, west = pair(client, "token_bucket", limit=10, window_us=10 * SECOND_US)
    east.hit(9)
    west.merge("east/1", east.collect())
    for _ in range(100):
        east.now_us += 2 * SECOND_US
        west.now_us += 2 * SECOND_US
        assert west.hit(1).allowed
        east.merge("west/1", west.collect())
    assert [cell.taken for cell in east.collect()] == [9]
    assert west.merge("east/1", east.collect()) == "known"
    assert west.left() == 9


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "sliding_log", "token_bucket"])
@pytest.mark.parametrize("seed", range(10))
def test_regions_agree_whatever_the_network_does(client, algorithm: str, seed: int):
    rnd = random.Random(seed)
    shared = rule(algorithm, 50, 366 * 24 * HOUR_US, mode="shared")
    regions = [Region(client, name, shared, START_US, regions=3) for name in ("a", "b", "c")]
    sent: list[tuple[Region, tuple[Cell, ...]]] = []
    used = 0
    for _ in range(40):
        region = rnd.choice(regions)
        if rnd.random() < 0.5:
            cost = rnd.randint(1, 3)
            if region.hit(cost).allowed:
                used += cost
                if rnd.random() < 0.2 and region.give_back(cost, START_US):
                    used -= cost
        else:
            sent.append((region, region.collect()))
            sender, cells = rnd.choice(sent)
            if cells and sender is not region:
                region.merge(sender.name, cells)
    for sender in regions:
        for receiver in regions:
            if receiver is not sender and (cells := sender.collect()):
                receiver.merge(sender.name, cells)
    assert {region.left() for region in regions} == {max(0, 50 - used)}


def test_what_is_over_the_limit_is_seen_when_counts_meet(client):
    east, west = pair(client, "fixed_window")
    east.hit(8)
    west.hit(7)
    west.merge("east/1", east.collect())
    assert west.most_over == 5
    assert west.left() == 0


def _window(region: Region) -> int:
    return START_US if region.rule.algorithm.endswith("bucket") else region.now_us // HOUR_US


def _would_pass(client: "redis.Redis", region: Region, cost: int) -> bool:
    """Try, and put the state back."""
    before = client.dump(region.key)
    passed = region.hit(cost).allowed
    client.restore(region.key, 0, before, replace=True)
    return passed
