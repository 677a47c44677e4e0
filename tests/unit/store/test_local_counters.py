"""Counters in the node: the decide script over a bounded memory."""

import pytest

from data_plane.store.local_counters import LocalCounters
from data_plane.store.packing import Outcome, encode_check, encode_rule, outcomes_of
from data_plane.store.script_host import ScriptHost
from tidegate.contract.limits import LimitRule

NOW_US = 1_700_000_040_000_000
MINUTE_US = 60_000_000
HOST = ScriptHost()


def params(limit: int, id: int = 1, shadow: bool = False) -> bytes:
    rule = LimitRule(id=id, name="x", algorithm="fixed_window", limit=limit, window_us=MINUTE_US, shadow=shadow)
    return encode_rule(rule)


def counters(max_keys: int = 10) -> LocalCounters:
    return LocalCounters(HOST, max_keys)


def left(found: LocalCounters, key: bytes, limit: int, now_us: int = NOW_US) -> int:
    return found.check([key], [params(limit)], 0, now_us)[0].remaining


def test_counts_by_key():
    found = counters()
    assert [found.check([b"a"], [params(2)], 1, NOW_US)[0].allowed for _ in range(3)] == [True, True, False]
    assert found.check([b"b"], [params(2)], 1, NOW_US)[0].remaining == 1


def test_is_all_or_nothing():
    found = counters()
    limits = [params(10, id=1), params(1, id=2)]
    found.check([b"a", b"b"], limits, 1, NOW_US)
    assert [outcome.allowed for outcome in found.check([b"a", b"b"], limits, 1, NOW_US)] == [True, False]
    assert left(found, b"a", 10) == 9


def test_a_shadow_limit_blocks_nothing():
    found = counters()
    limits = [params(1, id=1, shadow=True), params(5, id=2)]
    answers = [found.check([b"a", b"b"], limits, 1, NOW_US) for _ in range(3)]
    assert [(shadow.allowed, enforced.remaining) for shadow, enforced in answers] == [(True, 4), (False, 3), (False, 2)]


def test_many_are_decided_in_order_in_one_call():
    found = counters()
    figures = found.decide([b"a", b"a", b"a", b"b"], [encode_check(1, [params(2)])] * 4, NOW_US)
    assert [outcome.allowed for outcome in outcomes_of(figures, 1, 4)] == [True, True, False, True]


def test_more_keys_than_fit_the_stack_of_lua_are_decided_too():
    found = counters(5_000)
    keys = [b"%d" % number for number in range(5_000)]
    figures = found.decide(keys, [encode_check(1, [params(2)])] * 5_000, NOW_US)
    assert all(outcome.allowed for outcome in outcomes_of(figures, 1, 5_000))
    assert len(found) == 5_000


def test_forgets_the_least_recently_used_beyond_its_size():
    found = counters(2)
    for key in (b"a", b"b"):
        found.check([key], [params(5)], 1, NOW_US)
    found.check([b"a"], [params(5)], 1, NOW_US)
    found.check([b"c"], [params(5)], 1, NOW_US)
    assert len(found) == 2
    assert left(found, b"a", 5) == 3
    assert left(found, b"b", 5) == 5


def test_forgets_what_means_nothing_any_more():
    found = counters()
    found.check([b"a"], [params(5)], 1, NOW_US)
    assert left(found, b"a", 5, NOW_US + MINUTE_US) == 5


def test_tells_what_a_counter_in_some_state_would_have_left_and_touches_nothing():
    found = counters()
    found.check([b"a"], [params(5)], 3, NOW_US)
    state = found.state(b"a")
    assert state is not None
    found.check([b"a"], [params(5)], 1, NOW_US)
    assert found.remaining([(params(5), state), (params(5), found.state(b"a"))], NOW_US) == [2, 1]
    assert found.remaining([(params(5), state)], NOW_US + MINUTE_US) == [5]
    assert found.check([b"a"], [params(5)], 0, NOW_US) == [Outcome(True, 1, 60_000_000 - NOW_US % MINUTE_US, 0, 0)]


def test_needs_room_for_a_key():
    with pytest.raises(ValueError, match="max_keys"):
        counters(0)
