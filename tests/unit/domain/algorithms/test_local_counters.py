"""The limiter of last resort: the pure rules over a bounded memory."""

import pytest

from contract.limits import LimitRule
from data_plane.domain.local_counters import LocalCounters

NOW_US = 1_700_000_040_000_000
MINUTE_US = 60_000_000


def rule(limit: int, id: int = 1, shadow: bool = False) -> LimitRule:
    return LimitRule(id=id, name="x", algorithm="fixed_window", limit=limit, window_us=MINUTE_US, shadow=shadow)


def test_counts_by_key():
    counters = LocalCounters(max_keys=10)
    assert [counters.check([b"a"], [rule(2)], 1, NOW_US)[0].allowed for _ in range(3)] == [True, True, False]
    assert counters.check([b"b"], [rule(2)], 1, NOW_US)[0].remaining == 1


def test_is_all_or_nothing():
    counters = LocalCounters(max_keys=10)
    rules = [rule(10, id=1), rule(1, id=2)]
    counters.check([b"a", b"b"], rules, 1, NOW_US)
    assert [outcome.allowed for outcome in counters.check([b"a", b"b"], rules, 1, NOW_US)] == [True, False]
    assert counters.check([b"a"], rules[:1], 0, NOW_US)[0].remaining == 9


def test_a_shadow_limit_blocks_nothing():
    counters = LocalCounters(max_keys=10)
    rules = [rule(1, id=1, shadow=True), rule(5, id=2)]
    answers = [counters.check([b"a", b"b"], rules, 1, NOW_US) for _ in range(3)]
    assert [(shadow.allowed, enforced.remaining) for shadow, enforced in answers] == [(True, 4), (False, 3), (False, 2)]


def test_forgets_the_least_recently_used_beyond_its_size():
    counters = LocalCounters(max_keys=2)
    for key in (b"a", b"b"):
        counters.check([key], [rule(5)], 1, NOW_US)
    counters.check([b"a"], [rule(5)], 1, NOW_US)
    counters.check([b"c"], [rule(5)], 1, NOW_US)
    assert len(counters) == 2
    assert counters.check([b"a"], [rule(5)], 0, NOW_US)[0].remaining == 3
    assert counters.check([b"b"], [rule(5)], 0, NOW_US)[0].remaining == 5


def test_forgets_what_means_nothing_any_more():
    counters = LocalCounters(max_keys=10)
    counters.check([b"a"], [rule(5)], 1, NOW_US)
    assert counters.check([b"a"], [rule(5)], 0, NOW_US + MINUTE_US)[0].remaining == 5
    assert len(counters) == 0


def test_needs_room_for_a_key():
    with pytest.raises(ValueError, match="max_keys"):
        LocalCounters(max_keys=0)
