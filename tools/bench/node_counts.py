"""What a node itself counts: decisions, and those that it made without its store."""

import time
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tools.bench.errors import BenchError

IDLE_WITHIN_S = 10.0
LOOK_EVERY_S = 0.05
DECISIONS = "rate_limit_checks_total"
DEGRADED = "rate_limit_degraded_total"


class NodeCounts(NamedTuple):
    """Since the node's start."""

    decisions: int
    degraded: int


def wait_until_idle(url: str) -> None:
    """Wait until what is under way has been decided: a node goes on for a moment after its clients have left."""
    deadline = time.monotonic() + IDLE_WITHIN_S
    before, now = None, node_counts(url)
    while now != before:
        if time.monotonic() > deadline:
            raise BenchError(f"{url} still decides {IDLE_WITHIN_S:.0f} s after the load ended")
        time.sleep(LOOK_EVERY_S)
        before, now = now, node_counts(url)


def node_counts(url: str) -> NodeCounts:
    """Read a node's metrics."""
    text = httpx.get(f"{url}/metrics", timeout=5, trust_env=False).text
    totals = {DECISIONS: 0.0, DEGRADED: 0.0}
    seen = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in totals:
                totals[sample.name] += sample.value
                seen.add(sample.name)
    if seen != set(totals):
        raise BenchError(f"{url}/metrics lacks {sorted(set(totals) - seen)}")
    return NodeCounts(int(totals[DECISIONS]), int(totals[DEGRADED]))
