"""The cases that semantics.md says must hold, numbered as there. (9, no limit: no store call; 11: batches of requests;
12 over nodes belong to the doors' and system tests; what of them concerns scripts is here and in test_real_clock.)
"""

import msgspec
import pytest

from data_plane.config.limit_resolution import in_region
from data_plane.decide.store_fallback import node_part
from data_plane.store.packing import NEVER, Outcome
from tests.conformance.drivers import Check, Driver
from tests.conformance.rules import DAY_US, HOUR_US, MINUTE_US, SECOND_US, START_US, rule
from tidegate.contract.limits import capacity

ALGORITHMS = ["fixed_window", "sliding_window", "sliding_log", "token_bucket"]
"""Those that hold exactly ``limit`` when untouched (a leaky bucket holds one more)."""


def hits(driver: Driver, rules, costs, now_us=START_US) -> list[list[Outcome]]:
    rules = rules if isinstance(rules, tuple) else (rules,)
    return driver.decide([Check("acme", rules, cost) for cost in costs], now_us)


def left(outcomes: list[list[Outcome]]) -> list[int | str]:
    """The first limit's remaining, or DENY."""
    return [answer[0].remaining if answer[0].allowed else "DENY" for answer in outcomes]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_case_1_limit_two(driver: Driver, algorithm: str):
    assert left(hits(driver, rule(algorithm, 2, HOUR_US), [1, 1, 1])) == [1, 0, "DENY"]


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket"])
def test_case_2_a_denied_request_consumes_nothing(driver: Driver, algorithm: str):
    got = left(hits(driver, rule(algorithm, 2000, HOUR_US), [1000, 1500, 500, 400, 100, 1]))
    assert got == [1000, "DENY", 500, 100, 0, "DENY"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_case_3_twenty_a_minute(driver: Driver, algorithm: str):
    got = left(hits(driver, rule(algorithm, 20, HOUR_US), [1] * 25))
    assert got == [*range(19, -1, -1), *["DENY"] * 5]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_case_4_combined_limits_take_all_or_nothing(driver: Driver, algorithm: str):
    minute = rule(algorithm, 20, HOUR_US, id=1)
    hour = rule(algorithm, 10, 24 * HOUR_US, id=2)
    answers = hits(driver, (minute, hour), [1] * 15)
    assert [answer[1].allowed for answer in answers] == [True] * 10 + [False] * 5
    assert all(answer[0] == Outcome(True, 10, answer[0].reset_us, 0, 0) for answer in answers[9:])
    assert left(hits(driver, minute, [0])) == [10]


def test_case_5_token_bucket_rounds_down_and_refills(timed_driver: Driver):
    bucket = rule("token_bucket", 10, 30 * SECOND_US)
    got = [left(hits(timed_driver, bucket, [1], START_US + second * SECOND_US))[0] for second in range(3)]
    assert got == [9, 8, 7]
    later_us = START_US + 2 * SECOND_US
    denied = hits(timed_driver, bucket, [9], later_us)[0][0]
    assert not denied.allowed
    assert left(hits(timed_driver, bucket, [9], later_us + denied.retry_us - 1)) == ["DENY"]
    assert left(hits(timed_driver, bucket, [0], later_us + 60 * SECOND_US)) == [10]


def test_case_6_token_bucket_never_exceeds_its_burst(timed_driver: Driver):
    bucket = rule("token_bucket", 10, SECOND_US, burst=20)
    assert left(hits(timed_driver, bucket, [1, 19])) == [19, 0]
    assert left(hits(timed_driver, bucket, [0, 21, 20], START_US + MINUTE_US)) == [20, "DENY", 0]


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket"])
def test_case_7_thousands_a_second(timed_driver: Driver, algorithm: str):
    assert left(hits(timed_driver, rule(algorithm, 2000, SECOND_US), [1, 100])) == [1999, 1899]


@pytest.mark.parametrize("part", [1, 3, 7])
@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket"])
def test_a_part_of_a_large_bucket_holds_that_part_and_fills_no_faster(timed_driver: Driver, algorithm: str, part: int):
    """Most parts of a round limit are no round figures: thousands of millions a day, in thirds."""
    units = 10**9 // part
    whole = rule(algorithm, 10**9, DAY_US, shares={"us-east": units})
    bucket = in_region(whole, "us-east") if part == 3 else node_part(whole, part)
    held = capacity(bucket)
    assert held <= units + 1
    tenth = held // 10
    assert left(hits(timed_driver, bucket, [tenth] * 11)) == [*(held - tenth * taken for taken in range(1, 11)), "DENY"]
    filled = held % 10 + units // 24
    assert filled * 0.999 < left(hits(timed_driver, bucket, [0], START_US + HOUR_US))[0] <= filled


def test_case_7_two_tokens_a_millisecond(timed_driver: Driver):
    bucket = rule("token_bucket", 2000, SECOND_US)
    hits(timed_driver, bucket, [2000])
    assert left(hits(timed_driver, bucket, [1], START_US + 499)) == ["DENY"]
    assert left(hits(timed_driver, bucket, [1], START_US + 500)) == [0]
    assert left(hits(timed_driver, bucket, [2, 2], START_US + 1500)) == [0, "DENY"]


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "sliding_log"])
def test_case_8_changed_limit_keeps_what_was_used(driver: Driver, algorithm: str):
    first = rule(algorithm, 100, HOUR_US)
    assert left(hits(driver, first, [1, 1])) == [99, 98]
    assert left(hits(driver, msgspec.structs.replace(first, limit=10), [1])) == [7]
    assert left(hits(driver, msgspec.structs.replace(first, limit=200), [1])) == [196]
    assert left(hits(driver, msgspec.structs.replace(first, limit=2), [0, 1])) == ["DENY", "DENY"]


def test_case_8_changed_burst_keeps_the_tokens_that_fit(driver: Driver):
    first = rule("token_bucket", 1, 24 * HOUR_US, burst=100)
    assert left(hits(driver, first, [40])) == [60]
    assert left(hits(driver, msgspec.structs.replace(first, burst=1000), [0])) == [60]
    assert left(hits(driver, msgspec.structs.replace(first, burst=50), [1])) == [49]
    assert left(hits(driver, msgspec.structs.replace(first, burst=100), [0])) == [49]
    assert left(hits(driver, msgspec.structs.replace(first, burst=100, limit=3), [1])) == [48]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "leaky_bucket"])
def test_case_9_limit_zero_denies_for_ever(driver: Driver, algorithm: str):
    nothing = rule(algorithm, 0, HOUR_US, **({"burst": 5} if algorithm.endswith("bucket") else {}))
    for answer in hits(driver, nothing, [1, 0, 7]):
        assert not answer[0].allowed
        assert answer[0].retry_us == NEVER
        assert answer[0].remaining == 0


def test_case_10_shadow_denies_nobody_but_says_so(driver: Driver):
    shadow = rule("fixed_window", 2, 24 * HOUR_US, id=1, shadow=True)
    enforced = rule("fixed_window", 4, 24 * HOUR_US, id=2)
    answers = hits(driver, (shadow, enforced), [1] * 5)
    assert [(a.allowed, b.allowed) for a, b in answers] == [
        (True, True), (True, True), (False, True), (False, True), (False, False),
    ]  # fmt: skip
    assert [b.remaining for _, b in answers] == [3, 2, 1, 0, 0]
    assert hits(driver, shadow, [0])[0][0].remaining == 0


def test_case_11_a_batch_is_decided_in_order(driver: Driver):
    one = rule("sliding_window", 1, 24 * HOUR_US)
    answers = driver.decide([Check(subject, (one,), 1) for subject in ["a", "b", "a", "c", "b"]], START_US)
    assert [answer[0].allowed for answer in answers] == [True, True, False, True, False]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "leaky_bucket"])
def test_cost_beyond_what_the_limit_holds_never_passes(driver: Driver, algorithm: str):
    got = hits(driver, rule(algorithm, 10, HOUR_US), [12, 10**12])
    assert [answer[0].retry_us for answer in got] == [NEVER, NEVER]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "leaky_bucket"])
def test_peek_changes_nothing(driver: Driver, algorithm: str):
    ten = rule(algorithm, 10, 24 * HOUR_US)
    before, *peeks, after = hits(driver, ten, [3, 0, 0, 1])
    assert [peek[0].remaining for peek in peeks] == [before[0].remaining] * 2
    assert after[0].remaining == before[0].remaining - 1


def test_leaky_bucket_gives_each_its_turn(timed_driver: Driver):
    queue = rule("leaky_bucket", 10, SECOND_US, burst=2)
    answers = hits(timed_driver, queue, [1, 1, 1, 1])
    assert [(answer[0].allowed, answer[0].delay_us) for answer in answers] == [
        (True, 0), (True, 100_000), (True, 200_000), (False, 0),
    ]  # fmt: skip
    assert answers[-1][0].retry_us == 100_000
    assert hits(timed_driver, queue, [1], START_US + 150_000)[0][0].delay_us == 150_000


def test_sliding_window_retry_solves_the_weight(timed_driver: Driver):
    ten = rule("sliding_window", 10, 100 * SECOND_US)
    hits(timed_driver, ten, [10])
    # Full at the window's start: one unit is free once a tenth of the next window has passed.
    denied = hits(timed_driver, ten, [1])[0][0]
    assert denied.retry_us == denied.reset_us + 10 * SECOND_US
    assert left(hits(timed_driver, ten, [1], START_US + denied.retry_us - 1)) == ["DENY"]
    assert left(hits(timed_driver, ten, [1], START_US + denied.retry_us)) == [0]


def test_calendar_windows_begin_where_they_say(timed_driver: Driver):
    def reset_s(now_us: int, **members) -> int:
        reset_us = hits(timed_driver, rule("fixed_window", 5, None, **members), [0], now_us)[0][0].reset_us
        return reset_us // SECOND_US

    day_s = 86_400  # START is Wednesday 2023-11-15, 00:00 UTC
    assert reset_s(START_US, calendar="minute") == 60
    assert reset_s(START_US + SECOND_US, calendar="hour") == 3599
    assert reset_s(START_US, calendar="day", anchor_us=6 * HOUR_US) == 6 * 3600
    assert reset_s(START_US, calendar="week") == 5 * day_s
    assert reset_s(START_US, calendar="month") == 16 * day_s
    # Anchored on 1970-02-28T12:00Z: the next 28th at noon is 13.5 days after the 15th.
    assert reset_s(START_US, calendar="month", anchor_us=(58 * 24 + 12) * HOUR_US) == 13 * day_s + day_s // 2


def test_month_lengths_and_leap_years(timed_driver: Driver):
    february_2024_us = 1_706_745_600 * SECOND_US
    month = rule("fixed_window", 1, None, calendar="month")
    assert left(hits(timed_driver, month, [1, 1], february_2024_us)) == [0, "DENY"]
    assert left(hits(timed_driver, month, [1], february_2024_us + 29 * 24 * HOUR_US - 1)) == ["DENY"]
    assert left(hits(timed_driver, month, [1], february_2024_us + 29 * 24 * HOUR_US)) == [0]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "leaky_bucket"])
def test_clock_that_steps_back_mints_nothing(timed_driver: Driver, algorithm: str):
    ten = rule(algorithm, 10, MINUTE_US)
    whole = 11 if algorithm == "leaky_bucket" else 10
    assert left(hits(timed_driver, ten, [whole])) == [0]
    assert left(hits(timed_driver, ten, [1], START_US - 90 * SECOND_US)) == ["DENY"]
    assert left(hits(timed_driver, ten, [1])) == ["DENY"]
