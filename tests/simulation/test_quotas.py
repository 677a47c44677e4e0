"""Shares in whole units, and changes of them that never let two regions own the same right."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract.shares import split
from data_plane.domain.regions.asking import Asker
from data_plane.domain.regions.book import NOTHING
from data_plane.domain.regions.frame import Frame, first_free_id, id_at, start_us
from data_plane.domain.regions.messages import Ask
from data_plane.domain.regions.quotas import Quota, cut, quota_at, raise_from
from data_plane.domain.regions.rules import ALL_RULES
from data_plane.domain.regions.terms import NO_ID

SKEW_US = 1_000_000
FRAME = Frame(10_000_000)
WEIGHTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50), min_size=1).filter(lambda w: sum(w.values()))


@given(st.integers(0, 10**9), WEIGHTS)
def test_split_loses_nothing_and_gives_nobody_less_than_exact_rounded_down(total: int, weights: dict[str, int]):
    shares = split(total, weights)
    whole = sum(weights.values())
    assert sum(shares.values()) == total
    assert all(shares[name] >= total * weight // whole for name, weight in weights.items())


@example(5, 1, {"a": 4, "b": 4, "c": 1})
@given(st.integers(0, 10**5), st.integers(1, 9), WEIGHTS)
def test_a_larger_whole_gives_no_region_less(total: int, more: int, weights: dict[str, int]):
    """The largest remainder did: 5 by 4 : 4 : 1 were 2, 2 and 1, but 6 were 3, 3 and 0."""
    before, after = split(total, weights), split(total + more, weights)
    assert all(after[name] >= before[name] for name in weights)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 30_000_000), st.lists(st.integers(1, 9), min_size=3, max_size=3)), max_size=4),
    st.lists(st.integers(-500_000, 500_000), min_size=3, max_size=3),
)
def test_no_id_is_ever_owned_twice(changes: list[tuple[int, list[int]]], clocks: list[int]):
    """Changes of shares, one after the other; clocks differ, and every region cuts when it hears of it."""
    regions = "abc"
    limit, now_us = 1_000, 1_700_000_000_000_000
    shares = split(limit, dict.fromkeys(regions, 1))
    schedules = {name: (Quota(NO_ID, shares[name], limit),) for name in regions}
    seen = [schedules]
    for later_us, weights in changes:
        now_us += later_us
        target = split(limit, dict(zip(regions, weights, strict=True)))
        effective = []
        for number, (name, clock_us) in enumerate(zip(regions, clocks, strict=True)):
            here_us = now_us + clock_us + 700_000 * number
            free = first_free_id(FRAME, here_us, SKEW_US)
            schedule, from_id = cut(
                schedules[name], Quota(0, target[name], limit), id_at(FRAME, here_us), free, ALL_RULES
            )
            assert start_us(FRAME, from_id) > here_us
            for id in range(free - 3, free):
                assert quota_at(schedule, id).share == quota_at(schedules[name], id).share
            schedules = {**schedules, name: schedule}
            effective.append(from_id)
            seen.append(schedules)
        now_us += 3_000_000
        raised = {name: raise_from(schedules[name], Quota(max(effective), target[name], limit)) for name in regions}
        # Regions hear of the raise one after the other.
        for name in regions:
            schedules = {**schedules, name: raised[name]}
            seen.append(schedules)
    first = id_at(FRAME, 1_700_000_000_000_000)
    for now in seen:
        for id in range(first - 2, first + 20):
            assert sum(quota_at(now[name], id).share for name in regions) <= limit
    last = first + 30
    assert sum(quota_at(schedules[name], last).share for name in regions) == limit


def test_an_asker_forgets_what_is_idle():
    asker = Asker(["west"], ALL_RULES)
    ask = Ask("old", 0, 1, 5, "east", 1, 0, NOTHING, 0, 0, 1_000)
    assert asker.whom(("old", 0), 5, {"west": 1}, 1, 1_000) == "west"
    asker.asked(("old", 0), ask, "west", 1_000)
    assert asker.whom(("old", 0), 5, {"west": 1}, 1, 1_001) is None
    asker.forget_idle(before_us=500)
    assert asker.whom(("old", 0), 5, {"west": 1}, 1, 1_002) is None
    asker.forget_idle(before_us=2_000)
    assert asker.whom(("old", 0), 5, {"west": 1}, 1, 1_003) == "west"
