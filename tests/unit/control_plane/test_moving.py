"""Shares move by steps, so that no window ever has more than the limit."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control_plane.quotas.share_schedule import (
    Schedule,
    Steps,
    acknowledged,
    cut_again,
    limit_units,
    losers,
    needed,
    one_step,
    raise_at_us,
    rescheduled,
    retargeted,
    same_shares,
)
from data_plane.config.strict_limits import divided, schedule_of
from testing.effort import examples
from tests.reference.shares import quota_at
from tidegate.contract.calendar import SKEW_US, cycle_us, grid_of, id_at, next_start_us, start_us
from tidegate.contract.limits import PARTS, LimitRule, ShareStep
from tidegate.contract.shares import equal_shares, split

HOUR_US = 3_600_000_000
NOW_US = 1_700_000_000_000_000


def step(limit: int, from_us: int = 0, **shares: int) -> ShareStep:
    return ShareStep(from_us=from_us, limit=limit, shares=shares)


def rule(**changes: Any) -> LimitRule:
    values: dict[str, Any] = {"id": 1, "name": "r", "limit": 1000, "window_us": HOUR_US, "mode": "strict"}
    return LimitRule(**(values | changes))


def share_under(steps: Steps, region: str, window_start_us: int) -> int:
    """What nodes go by in the window that begins then."""
    return next(one for one in reversed(steps) if one.from_us <= window_start_us).shares.get(region, 0)


def moved(now: ShareStep, target: ShareStep) -> Schedule:
    return retargeted(rule(), one_step(now), target, NOW_US, "abc")


def test_a_move_cuts_from_the_next_window_and_waits() -> None:
    move = moved(step(1000, a=600, b=400), step(1000, a=400, b=600))
    assert move.steps == (step(1000, a=600, b=400), step(1000, NOW_US, a=400, b=400))
    assert (move.waiting, losers(move)) == (True, {"a"})
    raised = acknowledged(move, NOW_US + HOUR_US)
    assert [one.from_us for one in raised.steps] == [0, NOW_US, NOW_US + HOUR_US]
    assert raised.steps[-1].shares == {"a": 400, "b": 600}
    assert not raised.waiting


def test_where_nobody_loses_there_is_nothing_to_wait_for() -> None:
    for target in (step(2000, a=1000, b=1000), step(1000, a=500, b=500)):
        assert moved(step(1000, a=500, b=500), target) == one_step(target)


def test_a_lowered_limit_is_felt_at_once_and_in_every_window() -> None:
    lowered = moved(step(1000, a=500, b=500), step(500, a=250, b=250))
    assert lowered.steps == (step(500, a=250, b=250),)
    # a region that has not heard may spend its old share: what is raised now would come on top
    again = retargeted(rule(), lowered, step(1000, a=300, b=700), NOW_US + 5, "abc")
    assert again.steps[-1].shares == {"a": 250, "b": 250}
    assert acknowledged(lowered, NOW_US).steps == lowered.steps
    turned = moved(step(1000, a=700, b=300), step(800, a=200, b=600))
    assert turned.steps == (step(800, a=200, b=300),)
    assert acknowledged(turned, NOW_US + 1).steps[-1] == step(800, NOW_US + 1, a=200, b=600)


def test_a_cut_that_is_made_again_is_new_to_agents_that_had_these_shares_before() -> None:
    """An agent that never got the 1,000 between two times 500 sees no change, and confirms none."""
    before = step(500, a=250, b=250)
    cut = moved(step(1000, a=500, b=500), before)
    assert cut.steps == (before,)
    again = cut_again(cut, NOW_US + 7)
    assert again.steps == (before, step(500, NOW_US + 7, a=250, b=250))
    assert cut_again(again, NOW_US + 9).steps == (before, step(500, NOW_US + 9, a=250, b=250))
    assert acknowledged(again, NOW_US + 9).steps == again.steps


def test_a_region_that_comes_is_raised_only_after_the_others_were_cut() -> None:
    move = moved(step(1000, a=500, b=500), step(1000, a=334, b=333, c=333))
    assert move.steps[-1] == step(1000, NOW_US, a=334, b=333, c=0)
    assert losers(move) == {"a", "b"}
    gone = moved(step(1000, a=500, b=500), step(1000, a=1000))
    assert gone.steps[-1].shares == {"a": 500}


def test_a_region_without_any_node_has_nothing_to_let_go_of() -> None:
    move = retargeted(rule(), one_step(step(1000, a=1000)), step(1000, a=500, b=500), NOW_US, spenders={"b"})
    assert move == one_step(step(1000, a=500, b=500))


def test_a_raise_that_has_not_begun_is_no_share_that_may_be_kept() -> None:
    cut = moved(step(1000, a=600, b=400), step(1000, a=400, b=600))
    raised = acknowledged(cut, NOW_US + HOUR_US)
    move = retargeted(rule(), raised, step(1000, a=300, b=600), NOW_US + 5, "abc")
    assert move.steps[-1] == step(1000, NOW_US + 5, a=300, b=400)


def test_steps_that_matter_no_more_are_dropped() -> None:
    limit = rule()
    start = next_start_us(limit, NOW_US)
    steps = (step(1000, a=600, b=400), step(1000, start, a=400, b=400), step(1000, start + HOUR_US, a=400, b=600))
    assert needed(limit, steps, start + HOUR_US) == steps
    late = start + 3 * HOUR_US + SKEW_US
    assert needed(limit, steps, late) == (step(1000, a=400, b=600),)
    # no window began under the first cut
    twice = (step(1000, a=600, b=400), step(1000, start + 5, a=400, b=400), step(1000, start + 9, a=300, b=400))
    assert needed(limit, twice, start + 10) == (twice[0], twice[2])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": "fixed_window", "window_us": 60_000_000},
        {"algorithm": "fixed_window", "window_us": None, "calendar": "day", "anchor_us": 7 * HOUR_US},
        {"algorithm": "fixed_window", "window_us": None, "calendar": "week"},
        {"algorithm": "fixed_window", "window_us": None, "calendar": "month"},
        {"algorithm": "fixed_window", "window_us": None, "calendar": "month", "anchor_us": 14 * 24 * HOUR_US + HOUR_US},
        {"algorithm": "token_bucket", "window_us": 1_000_000, "burst": 5000},
    ],
)
@given(at_us=st.integers(0, 4_000_000_000_000_000))
@settings(max_examples=examples(60))
def test_windows_begin_where_nodes_say(changes: dict[str, Any], at_us: int) -> None:
    limit = rule(**changes)
    frame = grid_of(limit)
    assert next_start_us(limit, at_us) == start_us(frame, id_at(frame, at_us) + 1)
    assert cycle_us(limit) in {frame.length_us, 31 * 24 * HOUR_US}


def test_a_regional_share_rises_when_the_windows_of_the_old_one_are_over() -> None:
    fixed = rule(mode="regional", algorithm="fixed_window")
    start = next_start_us(fixed, NOW_US)
    assert raise_at_us(fixed, start - 5 * SKEW_US) == start
    # by a clock that is a second behind, this window goes on
    assert raise_at_us(fixed, start - SKEW_US // 2) == start + HOUR_US
    assert raise_at_us(rule(mode="regional"), start - 5 * SKEW_US) == start + HOUR_US
    assert raise_at_us(rule(mode="regional", algorithm="token_bucket"), NOW_US) == NOW_US


def test_shares_of_a_bucket_are_of_its_capacity() -> None:
    bucket = rule(algorithm="token_bucket", limit=10, window_us=1_000_000, burst=100)
    assert limit_units(bucket, step(10, a=55, b=45)) == {"a": 5, "b": 4}


@pytest.mark.parametrize("burst", [10, 200])
def test_a_bucket_of_another_size_is_divided_as_it_was(burst: int) -> None:
    """By shares of the size before a region would fill at several times its rate."""
    resized = rule(algorithm="token_bucket", window_us=60_000_000, burst=burst)
    move = retargeted(resized, one_step(step(1000, a=50, b=50)), step(1000, a=burst // 2, b=burst // 2), NOW_US, "ab")
    assert move == one_step(step(1000, a=burst // 2, b=burst // 2))
    cut = retargeted(
        resized, one_step(step(1000, a=80, b=20)), step(1000, a=burst // 5, b=burst * 4 // 5), NOW_US, "ab"
    )
    before = step(1000, a=burst * 4 // 5, b=burst // 5)
    assert cut.steps == (before, step(1000, NOW_US, a=burst // 5, b=burst // 5))
    assert losers(cut) == {"a"}


WEIGHTS = st.lists(st.integers(0, 9), min_size=3, max_size=3)
PAUSES_US = st.integers(0, 4 * HOUR_US)


@given(
    moves=st.lists(
        st.tuples(WEIGHTS, PAUSES_US, st.sampled_from([500, 1000, 1000, 1000]), st.booleans()), min_size=1, max_size=6
    )
)
@settings(max_examples=examples(100))
def test_no_window_ever_has_more_than_the_limit(moves: list[tuple[list[int], int, int, bool]]) -> None:
    """Each region may go by any version of the steps since the one that it acknowledged."""
    limit, names = rule(), ("a", "b", "c")
    schedule = one_step(step(1000, a=334, b=333, c=333))
    now_us = NOW_US
    seen = [schedule.steps]
    heard = 0  # the oldest version that a region may still go by
    for weights, pause_us, most_units, heeded in moves:
        now_us += pause_us + 1
        units = [most_units * weight // max(1, sum(weights)) for weight in weights]
        target = step(most_units, **dict(zip(names, units, strict=True)))
        if not same_shares(schedule.target, target):
            schedule = retargeted(limit, schedule, target, now_us, names)
            seen.append(schedule.steps)
        if schedule.waiting and heeded:
            now_us += SKEW_US
            heard = len(seen) - 1
            schedule = acknowledged(schedule, next_start_us(limit, now_us + SKEW_US))
            seen.append(schedule.steps)
        for window in range(-2, 26):
            begins_us = next_start_us(limit, NOW_US) + window * HOUR_US
            if begins_us > now_us:
                held = {name: max(share_under(version, name, begins_us) for version in seen[heard:]) for name in names}
                assert sum(held.values()) <= 1000, (window, held, seen)


@pytest.mark.parametrize("mode", ["strict", "regional"])
@pytest.mark.parametrize("heeded", [True, False])
def test_a_limit_that_fell_and_rises_to_less_than_it_was_is_divided_at_once(mode: str, heeded: bool) -> None:
    """Not from the next window on, which may begin in a month: so a limit that falls to there by one change is."""

    def limit_of(figure: int) -> LimitRule:
        shares = {"a": figure * 7 // 10, "b": figure * 3 // 10}
        return rule(limit=figure, mode=mode, shares=shares, parts=(step(PARTS, a=7 * 10**11, b=3 * 10**11),))

    units, parts = one_step(step(400, a=280, b=120)), one_step(limit_of(400).parts[0])
    at_once = rescheduled(limit_of(200), units, parts, NOW_US, "ab")
    assert at_once[0].steps == (step(200, a=140, b=60),)
    units, parts = rescheduled(limit_of(20), units, parts, NOW_US, "ab")
    if heeded:
        units = acknowledged(units, next_start_us(rule(), NOW_US + SKEW_US))
    assert rescheduled(limit_of(200), units, parts, NOW_US + 60_000_000, "ab") == at_once


@given(
    moves=st.lists(
        st.tuples(WEIGHTS, st.integers(0, 2 * HOUR_US), st.sampled_from([60, 100, 999, 1000]), st.booleans()),
        min_size=2, max_size=7,
    )
)  # fmt: skip
@example(
    # a raise that was to come was cut away, twice back and forth in the window that its version was spent in
    moves=[
        ([1, 8, 0], 0, 100, True), ([0, 9, 0], 4_998_999_997, 100, True), ([1, 8, 0], 0, 100, False),
        ([0, 9, 0], 4_998_999_997, 100, False), ([1, 8, 0], 0, 100, True), ([0, 9, 0], 0, 100, False),
        ([1, 8, 0], 0, 100, False),
    ],
)  # fmt: skip
@settings(max_examples=examples(100))
def test_no_window_ever_has_more_than_the_largest_limit_in_it(moves: list[tuple[list[int], int, int, bool]]) -> None:
    """Also one that has begun: what was spent under a version that nobody goes by any more stays spent."""
    now_us, limit = NOW_US, 1000
    names = ("a", "b", "c")
    units, parts = (one_step(step(whole, **equal_shares(whole, names))) for whole in (1000, PARTS))
    seen: list[tuple[int, int, Steps]] = [(0, limit, units.steps)]  # since when, of which limit
    heeded_us = [0]  # from when on no older version is gone by
    for weights, pause_us, figure, heeded in moves:
        now_us += pause_us + 1
        wanted = dict(zip(names, weights, strict=True)) if any(weights) else dict.fromkeys(names, 1)
        parts_wanted = step(PARTS, **split(PARTS, wanted))
        changed = rule(limit=figure, shares=split(figure, wanted), parts=(parts_wanted,))
        limit = figure
        units, parts = rescheduled(changed, units, parts, now_us, names)
        seen.append((now_us, limit, units.steps))
        heeded_us.append(heeded_us[-1])
        if heeded:
            now_us += SKEW_US
            from_us = next_start_us(rule(), now_us + SKEW_US)
            units, parts = (acknowledged(one, from_us) if one.waiting else one for one in (units, parts))
            heeded_us[-1] = now_us
            seen.append((now_us, limit, units.steps))
            heeded_us.append(now_us)
    for window in range(20):
        begins_us = next_start_us(rule(), NOW_US) + (window - 1) * HOUR_US
        used = [
            (most, steps)
            for number, (since_us, most, steps) in enumerate(seen)
            if since_us < begins_us + HOUR_US and not any(since_us < us <= begins_us for us in heeded_us[number:])
        ]
        held = [max(share_under(steps, name, begins_us) for _, steps in used) for name in names]
        assert sum(held) <= max(most for most, _ in used), (window, held, seen)


@given(moves=st.lists(st.tuples(WEIGHTS, PAUSES_US, st.booleans()), min_size=1, max_size=6), limit=st.integers(1, 50))
@settings(max_examples=examples(70))
def test_no_window_ever_has_more_than_an_overrides_limit(moves: list[tuple[list[int], int, bool]], limit: int) -> None:
    """As above, of an override when the limit's shares change: what nodes make of the versions of its parts."""
    names = ("a", "b", "c")
    schedule = one_step(step(PARTS, **equal_shares(PARTS, names)))
    seen, heard, now_us = [schedule.steps], 0, NOW_US
    for weights, pause_us, heeded in moves:
        now_us += pause_us + 1
        fractions = {name: Fraction(weight + 1, sum(weights) + 3) for name, weight in zip(names, weights, strict=True)}
        target = step(PARTS, **split(PARTS, fractions))
        if not same_shares(schedule.target, target):
            schedule = retargeted(rule(), schedule, target, now_us, names)
            seen.append(schedule.steps)
        if schedule.waiting and heeded:
            now_us += SKEW_US
            heard = len(seen) - 1
            schedule = acknowledged(schedule, next_start_us(rule(), now_us + SKEW_US))
            seen.append(schedule.steps)
        rules = [divided(rule(), limit, None, version) for version in seen[heard:]]
        for window in range(-2, 26):
            begins_us = next_start_us(rule(), NOW_US) + window * HOUR_US
            id = id_at(grid_of(rule()), begins_us)
            if begins_us > now_us:
                shares = [[quota_at(schedule_of(one, name), id).share for one in rules] for name in names]
                assert sum(map(max, shares)) <= limit, (window, shares, seen)
                if heeded:
                    assert sum(each[-1] for each in shares) <= limit
