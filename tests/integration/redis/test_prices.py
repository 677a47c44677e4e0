"""Limits with a price of their own in one check: charged their price, all or nothing, told at the average price."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_plane.store.asking import ask
from data_plane.store.packing import encode_rule, priced
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.store import RedisCounterStore
from testing.effort import examples
from tidegate.contract.limits import LimitRule

YEAR_US = 365 * 86_400_000_000
RULES = {
    name: LimitRule(id=at, name=name, algorithm=name, limit=100, window_us=YEAR_US)
    for at, name in enumerate(("fixed_window", "sliding_window", "sliding_log", "token_bucket"), 1)
}


@pytest.fixture
async def store(store_url):
    found = RedisCounterStore(RedisSettings(url=store_url, deadline_ms=5_000))
    await found.start()
    yield found
    await found.close()


@pytest.mark.parametrize("name", RULES)
async def test_a_priced_limit_takes_its_price_and_the_others_the_cost(store, name):
    plain, dear = b"{a}1", b"{a}2"
    params = [encode_rule(RULES["fixed_window"]), priced(encode_rule(RULES[name]), 3, 1 / 3)]
    for number in range(1, 34):
        (first, second), _ = await ask(store, [plain, dear], params, 1)
        assert (first.allowed, first.remaining) == (True, 100 - number)
        assert (second.allowed, second.remaining) == (True, (100 - 3 * number) // 3)
    (first, second), _ = await ask(store, [plain, dear], params, 1)
    assert (first.allowed, second.allowed) == (True, False)
    assert (first.remaining, second.remaining) == (67, 1), "nothing was taken, and of a denied one the truth is told"
    (alone,), _ = await ask(store, [dear], params[1:], 0)
    assert alone.remaining == 1, "a look at the price of three denies"
    (cheap,), _ = await ask(store, [dear], [encode_rule(RULES[name])], 1)
    assert (cheap.allowed, cheap.remaining) == (True, 0), "at its plain cost one was left"


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(RULES)),
    asked=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), min_size=1, max_size=12),
    number=st.integers(0, 10**9),
)
async def test_any_prices_add_up(store, name, asked, number):
    keys = [b"{%d}1" % number, b"{%d}2" % number]
    await store.execute("DEL", *keys)
    left = [100, 100]
    for cost, price in asked:
        params = [encode_rule(RULES["fixed_window"]), priced(encode_rule(RULES[name]), price, 1.0)]
        outcomes, _ = await ask(store, keys, params, cost)
        fits = [cost <= left[0], price <= left[1]]
        assert [outcome.allowed for outcome in outcomes] == fits
        if all(fits):
            left = [left[0] - cost, left[1] - price]
        assert [outcome.remaining for outcome in outcomes] == left
