"""Metrics of a node or an agent: decisions, holds, configuration, the size of the store."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from data_plane.decide.decision_tally import LATENCY_BUCKETS_US, Tally
from data_plane.holds.service import HoldTally
from data_plane.metrics.exposition import Part, counter, counter_by, gauge
from data_plane.store.statistics import Census


class ConfigFigures(NamedTuple):
    """The configuration in force, and the control plane's stream. Ages are seconds; ``None`` before the first."""

    revision: int
    wanted_revision: int
    age_s: float | None
    refusals: int
    refused_revision: int | None
    connected: bool
    silence_s: float | None
    reconnects: int
    snapshot_revision: int
    snapshot_age_s: float | None


def of_decisions(tally: Tally) -> Part:
    """Metrics of decisions and their latency."""

    def families() -> Iterator[Metric]:
        checks = CounterMetricFamily("rate_limit_checks", "Decisions by result", labels=["result"])
        checks.add_metric(["allowed"], tally.allowed)
        checks.add_metric(["denied"], tally.denied)
        checks.add_metric(["refused"], sum(tally.refused_by_reason.values()))
        yield checks
        yield counter_by("rate_limit_blocked", "Denials by each limit that denied", "policy", tally.denied_by_policy)
        yield counter_by(
            "rate_limit_shadow_denied", "Would-be denials by shadow limit", "policy", tally.shadow_denied_by_policy
        )
        yield counter_by(
            "rate_limit_refused", "Requests refused before any limit, by reason", "reason", tally.refused_by_reason
        )
        yield counter("rate_limit_degraded", "Decisions made without the store", tally.degraded)
        yield counter("rate_limit_remembered", "Denials repeated from memory, without the store", tally.remembered)
        yield _latency(tally)

    return families


def of_holds(tally: HoldTally) -> Part:
    """Metrics of leases and reservations, in units of cost."""

    def families() -> Iterator[Metric]:
        yield counter("tidegate_leased_units", "Units taken by leases", tally.leased)
        yield counter("tidegate_lease_returned_units", "Units of leases that came back unspent", tally.returned)
        yield counter("tidegate_reserved_units", "Units taken by reservations: estimates", tally.reserved)
        yield counter("tidegate_settled_units", "Units that settled reservations cost in truth", tally.settled)
        yield counter_by("tidegate_holds_denied", "Asks of which not one unit was granted", "kind", tally.denied)
        yield counter("tidegate_leases_impossible", "Asks under limits that cannot be leased", tally.not_leasable)

    return families


def of_config(figures: Callable[[], ConfigFigures]) -> Part:
    """Metrics of the configuration: its revision, age and refusals."""

    def families() -> Iterator[Metric]:
        now = figures()
        yield gauge("tidegate_config_revision", "Revision in force; 0 before the first", now.revision)
        yield gauge(
            "tidegate_config_wanted_revision", "Revision that the control plane last said this node should have",
            now.wanted_revision,
        )  # fmt: skip
        yield gauge("tidegate_config_age_seconds", "Time since the revision in force was applied", now.age_s or 0)
        yield counter("tidegate_config_nacks", "Revisions that this node refused", now.refusals)
        yield gauge(
            "tidegate_config_refused_revision", "Revision refused and not followed by a good one; else 0",
            now.refused_revision or 0,
        )  # fmt: skip
        yield gauge(
            "tidegate_control_plane_connected", "1 while the stream from the control plane is open", now.connected
        )
        if now.silence_s is not None:
            yield gauge(
                "tidegate_control_plane_silence_seconds",
                "Time since the control plane last said anything",
                now.silence_s,
            )
        yield counter("tidegate_control_plane_reconnects", "Times that the stream ended", now.reconnects)
        yield gauge("tidegate_snapshot_revision", "Revision in the snapshot file; 0 without one", now.snapshot_revision)
        if now.snapshot_age_s is not None:
            yield gauge("tidegate_snapshot_age_seconds", "Time since the snapshot file was written", now.snapshot_age_s)

    return families


def of_store_size(census: Census) -> Part:
    """Metrics of the store's size and load."""

    def families() -> Iterator[Metric]:
        size = census.size
        if size is not None:
            yield gauge("tidegate_store_keys", "Keys in the store", size.keys)
            yield gauge("tidegate_store_memory_bytes", "Memory that the store uses", size.used_bytes)
            yield gauge("tidegate_store_memory_limit_bytes", "Memory that it may use; 0: no bound", size.max_bytes)
            yield counter("tidegate_store_commands", "Commands that its servers processed", size.commands)
            yield counter("tidegate_store_evicted_keys", "Keys that its servers evicted: lost counts", size.evicted)

    return families


def _latency(tally: Tally) -> HistogramMetricFamily:
    buckets, total = [], 0
    for bound_us, count in zip((*LATENCY_BUCKETS_US, None), tally.latency_counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound_us is None else str(bound_us / 1_000_000), float(total)))
    return HistogramMetricFamily(
        "rate_limit_check_duration_seconds", "Time from the understood request to its decision",
        buckets=buckets, sum_value=tally.latency_sum_us / 1_000_000,
    )  # fmt: skip
