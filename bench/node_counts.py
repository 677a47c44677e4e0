"""What a node itself counts: decisions, and those that it made without its store."""

from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.errors import BenchError

DECISIONS = "rate_limit_checks_total"
DEGRADED = "rate_limit_degraded_total"


class NodeCounts(NamedTuple):
    """Since the node's start."""

    decisions: int
    degraded: int


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
