"""The node's Prometheus metrics, read from plain integers when they are scraped."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from data_plane.services.tally import LATENCY_BUCKETS_US, Tally


class PeerFigures(NamedTuple):
    """The exchange of counts with other regions, as it stands."""

    sent_cells: int
    sent_bytes: int
    failures: int
    refused_by_reason: dict[str, int]
    staleness_s: dict[str, float]


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class NodeCollector(Collector):
    """Turns the tally and a few gauges into metric families. All label values come from closed sets."""

    def __init__(self, tally: Tally, peers: PeerFigures, gauges: Callable[[], dict[str, tuple[str, float]]]) -> None:
        self._tally = tally
        self._peers = peers
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        tally = self._tally
        checks = CounterMetricFamily("rate_limit_checks", "Decisions by result", labels=["result"])
        checks.add_metric(["allowed"], tally.allowed)
        checks.add_metric(["denied"], tally.denied)
        checks.add_metric(["refused"], sum(tally.refused_by_reason.values()))
        yield checks
        yield _counter("rate_limit_blocked", "Denials by violated policy", "policy", tally.denied_by_policy)
        yield _counter("rate_limit_shadow_denied", "Would-be denials", "policy", tally.shadow_denied_by_policy)
        yield _counter("rate_limit_refused", "Requests refused by reason", "reason", tally.refused_by_reason)
        yield _counter(
            "rate_limit_redis_errors", "Decisions without the store", "reason", tally.store_unavailable_by_reason
        )
        yield CounterMetricFamily("rate_limit_degraded", "Decisions made without the store", value=tally.degraded)
        yield CounterMetricFamily("rate_limit_remembered", "Denials from the over-limit memory", value=tally.remembered)
        yield self._latency()
        yield from self._of_peers()
        for name, (help_text, value) in self._gauges().items():
            yield GaugeMetricFamily(name, help_text, value=value)

    def _of_peers(self) -> Iterator[Metric]:
        peers = self._peers
        yield CounterMetricFamily("tidegate_peer_cells_sent", "Cells told to other regions", value=peers.sent_cells)
        yield CounterMetricFamily("tidegate_peer_bytes_sent", "Bytes sent to other regions", value=peers.sent_bytes)
        yield CounterMetricFamily("tidegate_peer_failures", "Batches that a peer did not take", value=peers.failures)
        yield _counter("tidegate_peer_messages_refused", "Messages of peers refused", "reason", peers.refused_by_reason)
        age = GaugeMetricFamily("tidegate_peer_staleness_seconds", "Age of what a peer last said", labels=["region"])
        for region, staleness_s in sorted(peers.staleness_s.items()):
            age.add_metric([region], staleness_s)
        yield age

    def _latency(self) -> HistogramMetricFamily:
        buckets, total = [], 0
        for bound_us, count in zip((*LATENCY_BUCKETS_US, None), self._tally.latency_counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound_us is None else str(bound_us / 1_000_000), float(total)))
        return HistogramMetricFamily(
            "rate_limit_check_duration_seconds", "Time from request to decision",
            buckets=buckets, sum_value=self._tally.latency_sum_us / 1_000_000,
        )  # fmt: skip


def render(collector: NodeCollector) -> bytes:
    """The text of ``/metrics``."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _counter(name: str, help_text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family
