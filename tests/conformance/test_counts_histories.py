"""Counts of shared limits: the scripts do what the pure rules do, over histories that hypothesis makes up."""

import itertools
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.counts import Cell
from contract.limits import BUCKET_ALGORITHMS, capacity, nominal_window_us, reduced_rate
from data_plane.domain.regions import bucket_counts, counts
from data_plane.domain.regions.book import EMPTY
from data_plane.domain.regions.book import Cell as Figures
from data_plane.domain.regions.frame import frame_of, id_at
from data_plane.domain.regions.quotas import Quota
from data_plane.domain.regions.rules import DEFAULT_TIMING
from data_plane.domain.regions.standing import Standing
from data_plane.domain.regions.terms import NO_ID, Terms
from tests.conformance.regions import Region
from tests.conformance.rules import MINUTE_US, START_US, rule

LIMIT = 30
ALGORITHMS = ["fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket"]
SHARES = (("east", 1), ("south", 1), ("west", 1))
NAMES = itertools.count()

passing = st.sampled_from([0, 1, 400_000, 1_000_000, 3_100_000, 26_000_000, MINUTE_US, -500_000])
"""Microseconds until the next step; a clock may step back."""
taking = st.tuples(st.just("take"), passing, st.integers(0, 9))
hearing = st.tuples(
    st.just("hear"), passing, st.sampled_from(["east", "south"]), st.integers(1, 2), st.integers(-2, 2),
    st.integers(0, 40), st.integers(0, 12),
)  # fmt: skip
silence = st.tuples(st.just("silence"), passing, st.sampled_from([(), ("east",), ("east", "south")]))


class Pure:
    """A region's counter by the pure rules."""

    def __init__(self, algorithm: str) -> None:
        self.rule = rule(algorithm, LIMIT, MINUTE_US, mode="shared")
        rate, unit = reduced_rate(LIMIT, nominal_window_us(self.rule))
        self.terms = Terms(
            algorithm=self.rule.algorithm, frame=frame_of(self.rule, DEFAULT_TIMING),
            schedule=(Quota(NO_ID, 0, LIMIT),), incarnation=1, region="west", shares=SHARES,
            rate=rate, unit=unit, size=capacity(self.rule),
        )  # fmt: skip
        self.is_bucket = algorithm in BUCKET_ALGORITHMS
        self.state: Any = None
        self.book = EMPTY

    def decide(self, silent: tuple[str, ...], cost: int, now_us: int) -> Any:
        if self.is_bucket:
            return bucket_counts.decide_level(self.terms, self.state, silent, cost, now_us)
        return counts.decide_count(self.terms, self.state, self.book, silent, cost, now_us)

    def take(self, decided: Any, *, allowed: bool) -> None:
        """What was decided is stored; what was reserved, whatever was decided."""
        if allowed and decided.state is not None:
            self.state = decided.state
        if not self.is_bucket and decided.book is not None:
            self.book = decided.book
            if not allowed:
                self.state = decided.state

    def merge(self, silent: tuple[str, ...], life: tuple[str, int, int], cell: Figures, now_us: int) -> None:
        merge = bucket_counts.merge_level if self.is_bucket else counts.merge_cell
        merged = merge(self.terms, self.state, self.book, silent, life, cell, now_us)
        if merged is not None:
            self.state, self.book = merged


def play(client: "redis.Redis", algorithm: str, steps: list[tuple[Any, ...]], *, exactly: bool) -> None:
    """Every decision of a history by both. Not ``exactly``: scripts may keep more than the pure rules, not less."""
    pure = Pure(algorithm)
    region = Region(client, f"west{next(NAMES)}", pure.rule, START_US, regions=3)
    for kind, passed_us, *figures in steps:
        # What drained while a clock stepped back the scripts count when it has caught up.
        region.now_us += max(0, passed_us) if pure.is_bucket else passed_us
        now_us, silent = region.now_us, tuple(name for name, _ in region.standing.silent)
        if kind == "silence":
            since = dict(region.standing.silent)
            region.standing = Standing(silent=tuple((name, since.get(name, now_us)) for name in figures[0]))
        elif kind == "hear":
            peer, life, offset, taken, returned = figures
            window = START_US + 1_000_000 * offset if pure.is_bucket else id_at(pure.terms.frame, now_us) + offset
            cell = Figures(taken, min(taken, returned))
            region.merge(f"{peer}/{life}", [Cell(region.key, window, *cell)])
            pure.merge(silent, (peer, life, window), cell, now_us)
        else:
            (cost,) = figures
            expected, found = pure.decide(silent, cost, now_us), region.hit(cost)
            if exactly:
                assert found.remaining == expected.remaining
                assert found.allowed == expected.allowed or not cost
                if found.allowed:
                    assert found.delay_us == getattr(expected, "delay_us", 0)
            elif found.allowed:
                assert expected.allowed
                assert found.remaining <= expected.remaining
            pure.take(expected, allowed=found.allowed)


@pytest.fixture(scope="module")
def client(valkey_server):
    with redis.Redis.from_url(valkey_server.url) as client:
        yield client


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_while_all_are_heard_both_are_the_same_to_the_unit(client, algorithm: str):
    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(taking, taking, hearing), min_size=3, max_size=30))
    def histories(steps: list[tuple[Any, ...]]) -> None:
        play(client, algorithm, steps, exactly=True)

    histories()


@pytest.mark.parametrize("algorithm", [algorithm for algorithm in ALGORITHMS if algorithm not in BUCKET_ALGORITHMS])
def test_while_some_are_silent_the_scripts_admit_nothing_that_the_pure_rules_would_not(client, algorithm: str):
    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(taking, taking, hearing, silence), min_size=3, max_size=30))
    def histories(steps: list[tuple[Any, ...]]) -> None:
        play(client, algorithm, steps, exactly=algorithm == "fixed_window")

    histories()
