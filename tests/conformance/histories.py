"""Random histories: checks of changing limits at times that jump ahead, stand still and step back."""

import itertools
from collections import defaultdict
from typing import NamedTuple

import msgspec
from hypothesis import strategies as st

from data_plane.store.packing import Outcome
from tests.conformance.drivers import Check, PureDriver
from tests.conformance.rules import DAY_US, HOUR_US, MINUTE_US, SECOND_US, START_US
from tidegate.contract.limits import LimitRule, capacity, nominal_window_us, violations

LIMITS = [0, 1, 2, 3, 7, 10, 100, 999, 1000, 86_400, 1_000_000, 10**9 + 7, 10**12]
BURSTS = [None, 0, 1, 2, 5, 50, 1_001, 10**6]
WINDOWS_US = [1_000, 1_001, 333_333, SECOND_US, 7 * SECOND_US, MINUTE_US, HOUR_US, DAY_US, 366 * DAY_US]
ANCHORS_US = [0, 27 * DAY_US + 5 * HOUR_US, START_US + 17 * DAY_US + 1]


def _families() -> list[list[LimitRule]]:
    """Sound rules; those of a family differ in limit and burst only, so that one can become another."""
    families = defaultdict(list)
    fixed = [("fixed_window", {"calendar": name, "anchor_us": anchor_us})
             for name in ("minute", "hour", "day", "week", "month") for anchor_us in ANCHORS_US]  # fmt: skip
    plain = [(algorithm, {"window_us": window_us})
             for algorithm in ("fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket")
             for window_us in WINDOWS_US]  # fmt: skip
    for (algorithm, members), limit, burst in itertools.product(fixed + plain, LIMITS, BURSTS):
        found = LimitRule(id=0, name="x", algorithm=algorithm, limit=limit, burst=burst, **members)
        if not list(violations(found)):
            families[algorithm, *members.values()].append(found)
    return list(families.values())


FAMILIES = _families()


class History(NamedTuple):
    """Batches with their times, and what the pure rules answered."""

    batches: list[tuple[list[Check], int]]
    answers: list[list[list[Outcome]]]


def described(history: History) -> str:
    """A history as lines to read: time, subject, cost, rules, and what the pure rules answered."""
    lines = []
    for (checks, now_us), answers in zip(history.batches, history.answers, strict=True):
        for check, outcomes in zip(checks, answers, strict=True):
            lines.append(f"at {now_us} {check.subject} costs {check.cost}")
            for rule, outcome in zip(check.rules, outcomes, strict=True):
                window = rule.calendar or rule.window_us
                figures = f"{rule.algorithm} {rule.limit}/{window} burst {rule.burst} shadow {rule.shadow}"
                lines.append(f"    {rule.id} {figures} -> {tuple(outcome)}")
    return "\n".join(lines)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A history of up to three limits and two subjects, decided by the pure rules as it is drawn: half of the times
    are the edges that these rules name (a window's end, the moment to retry) and what is just before and after.
    """
    families = draw(st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=3))
    rules = [msgspec.structs.replace(_pick(draw, family), id=number, shadow=draw(st.integers(0, 5)) == 0)
             for number, family in enumerate(families)]  # fmt: skip
    now_us = START_US + draw(st.integers(0, 400 * DAY_US))
    edges = [now_us]
    pure = PureDriver()
    history = History([], [])
    for _ in range(draw(st.integers(1, 14))):
        if draw(st.integers(0, 4)) == 0:
            number = draw(st.integers(0, len(rules) - 1))
            rules[number] = msgspec.structs.replace(
                _pick(draw, families[number]), id=number, shadow=rules[number].shadow
            )
        now_us = _next_time(draw, now_us, edges, rules)
        checks = [_check(draw, rules) for _ in range(draw(st.integers(1, 4)))]
        answers = pure.decide(checks, now_us)
        for outcome in itertools.chain.from_iterable(answers):
            edges.append(now_us + outcome.reset_us)
            if outcome.retry_us > 0:
                edges.append(now_us + outcome.retry_us)
        history.batches.append((checks, now_us))
        history.answers.append(answers)
    return history


def _pick(draw: st.DrawFn, family: list[LimitRule]) -> LimitRule:
    return family[draw(st.integers(0, len(family) - 1))]


def _next_time(draw: st.DrawFn, now_us: int, edges: list[int], rules: list[LimitRule]) -> int:
    kind = draw(st.integers(0, 9))
    if kind < 2:
        return now_us
    if kind < 6:
        return max(START_US, draw(st.sampled_from(edges[-8:])) + draw(st.integers(-1, 1)))
    window_us = nominal_window_us(draw(st.sampled_from(rules)))
    if kind == 6:
        return max(START_US, now_us - draw(st.integers(0, 2 * window_us)))
    return now_us + draw(st.integers(0, 2 * window_us))


def _check(draw: st.DrawFn, rules: list[LimitRule]) -> Check:
    taken = rules if draw(st.booleans()) else [draw(st.sampled_from(rules))]
    room = min(capacity(rule) for rule in taken)
    cost = draw(st.sampled_from([0, 1, 1, 2, room // 3, room // 2, room, room + 1, 10**12]))
    return Check(draw(st.sampled_from(["a", "b"])), tuple(taken), cost)
