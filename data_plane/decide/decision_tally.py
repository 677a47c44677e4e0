"""Counts of this node's decisions as plain integers: cheap on the hot path, read when metrics are scraped.

Labels come from closed sets (policies of the config, reasons of the code), never from clients, addresses or paths.
"""

from bisect import bisect_left
from collections import Counter

from data_plane.decide.pending_check import Refusal, Verdict

LATENCY_BUCKETS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)


class Tally:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self.allowed = 0
        self.denied = 0
        self.degraded = 0
        self.remembered = 0
        """Denials by the denial cache, without asking the store."""
        self.denied_by_policy: Counter[str] = Counter()
        self.shadow_denied_by_policy: Counter[str] = Counter()
        self.refused_by_reason: Counter[str] = Counter()
        self.store_unavailable_by_reason: Counter[str] = Counter()
        self.latency_counts = [0] * (len(LATENCY_BUCKETS_US) + 1)
        self.latency_sum_us = 0

    def decided(self, verdict: Verdict, took_us: int) -> None:
        """A check was answered in ``took_us``."""
        if verdict.allowed:
            self.allowed += 1
        else:
            self.denied += 1
            for name in verdict.violated:
                self.denied_by_policy[name] += 1
        for name in verdict.shadow_denied:
            self.shadow_denied_by_policy[name] += 1
        if verdict.degraded:
            self.degraded += 1
        self.latency_counts[bisect_left(LATENCY_BUCKETS_US, took_us)] += 1
        self.latency_sum_us += took_us

    def passed(self, count: int, took_us: int, *, degraded: bool = False) -> None:
        """Count checks that were plainly allowed together, in ``took_us``; ``degraded``: without the store."""
        self.allowed += count
        self.degraded += count if degraded else 0
        self.latency_counts[bisect_left(LATENCY_BUCKETS_US, took_us)] += count
        self.latency_sum_us += took_us * count

    def refused(self, reason: Refusal) -> None:
        """Count a request that was refused before any limit applied."""
        self.refused_by_reason[reason.value] += 1

    def store_unavailable(self, reason: str) -> None:
        """The store gave no answer to a decision."""
        self.store_unavailable_by_reason[reason] += 1
