"""The scripts and the pure rules answer the same random histories the same: to the microsecond and the unit."""

import itertools

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from lupa import lua51

from data_plane.store.packing import NEVER
from data_plane.store.script_host import ScriptHost
from testing.effort import examples
from tests.conformance.drivers import LuaDriver, MemoryDriver, PureDriver
from tests.conformance.histories import History, described, histories
from tests.reference import evaluate

EXAMPLES = examples(200)
PROFILE = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
PURE_PROFILE = settings(PROFILE, max_examples=EXAMPLES // 4)
FLUSH_EVERY = 1_000


HOSTS = [ScriptHost(), ScriptHost(lua51)]
_examples = itertools.count()


@pytest.mark.parametrize("name", ["valkey", "redis"])
def test_scripts_agree_with_the_pure_rules(name: str, request: pytest.FixtureRequest):
    server = request.getfixturevalue(f"{name}_server")
    with redis.Redis.from_url(server.url) as client:

        @PROFILE
        @given(histories())
        def agree(history: History) -> None:
            number = next(_examples)
            if number % FLUSH_EVERY == 0:
                client.flushall()
            got = LuaDriver(client, f"{number}-").replay(history.batches)
            for answers, expected in zip(got, history.answers, strict=True):
                assert answers == expected, described(history)

        agree()
        client.flushall()


@PROFILE
@given(histories())
def test_scripts_in_this_process_agree_with_the_pure_rules(history: History):
    for host in HOSTS:
        driver = MemoryDriver(host)
        for (checks, now_us), expected in zip(history.batches, history.answers, strict=True):
            assert driver.decide(checks, now_us) == expected, described(history)


@PURE_PROFILE
@given(histories())
def test_retry_is_the_true_earliest_time(history: History):
    pure = PureDriver()
    for checks, now_us in history.batches:
        for check in checks:
            states = [pure.state((check.subject, rule.id), now_us) for rule in check.rules]
            pure.decide([check], now_us)
            for rule, before in zip(check.rules, states, strict=True):
                outcome = evaluate(rule, before, check.cost, now_us).untouched
                if outcome.allowed or outcome.retry_us == NEVER:
                    continue
                state = pure.state((check.subject, rule.id), now_us)
                assert outcome.retry_us > 0
                again_us = now_us + outcome.retry_us
                assert evaluate(rule, state, check.cost, again_us).untouched.allowed, (rule, state, check.cost, now_us)
                assert not evaluate(rule, state, check.cost, again_us - 1).untouched.allowed


@PURE_PROFILE
@given(histories())
def test_what_is_denied_or_peeked_changes_nothing(history: History):
    pure = PureDriver()
    for checks, now_us in history.batches:
        for check in checks:
            before = [pure.state((check.subject, rule.id), now_us) for rule in check.rules]
            outcomes = pure.decide([check], now_us)[0]
            after = [pure.state((check.subject, rule.id), now_us) for rule in check.rules]
            passed = all(outcome.allowed or rule.shadow for outcome, rule in zip(outcomes, check.rules, strict=True))
            for rule, outcome, old, new in zip(check.rules, outcomes, before, after, strict=True):
                consumed = passed and outcome.allowed and check.cost > 0
                peek = evaluate(rule, new, 0, now_us).untouched
                assert (evaluate(rule, old, 0, now_us).untouched == peek) is not (consumed and rule.limit > 0)
                assert outcome.remaining == peek.remaining
                assert outcome.remaining >= 0
                if outcome.allowed:
                    assert outcome.reset_us == peek.reset_us


@PURE_PROFILE
@given(histories())
def test_never_more_than_the_limit(history: History):
    """Whatever the order of times and limits: no window admits more than its limit at that moment."""
    pure = PureDriver()
    admitted: dict[tuple[str, int, int], int] = {}
    for checks, now_us in history.batches:
        for check in checks:
            outcomes = pure.decide([check], now_us)[0]
            if not all(outcome.allowed or rule.shadow for outcome, rule in zip(outcomes, check.rules, strict=True)):
                continue
            for rule, outcome in zip(check.rules, outcomes, strict=True):
                if rule.algorithm not in {"fixed_window", "sliding_window"} or not outcome.allowed:
                    continue
                window = (check.subject, rule.id, now_us + outcome.reset_us)
                admitted[window] = admitted.get(window, 0) + check.cost
                assert admitted[window] <= rule.limit or check.cost == 0
