"""Every metric of a node and an agent, by the part that it describes. ``docs/metrics.md`` explains each one.

Decisions are ``rate_limit_...``, everything else ``tidegate_...``. To add one, count it where it happens, and name it
here.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from data_plane.decide.decision_tally import LATENCY_BUCKETS_US, Tally
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.denial_ring import DenialRing
from data_plane.decide.tracing import Tracing
from data_plane.holds.service import HoldTally
from data_plane.http.peer_handler import PeerHandler
from data_plane.load.deciding import LoadDecider
from data_plane.load.following import Gates, LoadReports
from data_plane.metrics.exposition import MOST_LABEL_VALUES, counter, counter_by, gauge, gauge_by, info
from data_plane.replicate.peer_session import HttpPeers, ReplicationTally
from data_plane.rights.transfers import RightsTally
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.statistics import StoreStatistics
from data_plane.usage.stream import UsageShipper
from data_plane.usage.tally import UsageFlusher
from tidegate.contract.load import BackendLoad


def of_node(name: str, region: str) -> Iterator[Metric]:
    """The name, region and version of a node."""
    yield info("tidegate_node_info", "Which node this is", _labels(name, region))


def of_agent(name: str, region: str) -> Iterator[Metric]:
    """The name, region and version of an agent."""
    yield info("tidegate_agent_info", "Which agent this is", _labels(name, region))


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


def of_decisions(tally: Tally) -> Iterator[Metric]:
    """Metrics of decisions and their latency."""
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


def of_holds(tally: HoldTally) -> Iterator[Metric]:
    """Metrics of leases and reservations, in units of cost."""
    yield counter("tidegate_leased_units", "Units taken by leases", tally.leased)
    yield counter("tidegate_lease_returned_units", "Units of leases that came back unspent", tally.returned)
    yield counter("tidegate_reserved_units", "Units taken by reservations: estimates", tally.reserved)
    yield counter("tidegate_settled_units", "Units that settled reservations cost in truth", tally.settled)
    yield counter_by("tidegate_holds_denied", "Asks of which not one unit was granted", "kind", tally.denied)
    yield counter("tidegate_leases_impossible", "Asks under limits that cannot be leased", tally.not_leasable)


def of_config(now: ConfigFigures) -> Iterator[Metric]:
    """Metrics of the configuration: its revision, age and refusals."""
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
    yield gauge("tidegate_control_plane_connected", "1 while the stream from the control plane is open", now.connected)
    if now.silence_s is not None:
        yield gauge(
            "tidegate_control_plane_silence_seconds",
            "Time since the control plane last said anything",
            now.silence_s,
        )
    yield counter("tidegate_control_plane_reconnects", "Times that the stream ended or did not open", now.reconnects)
    yield gauge("tidegate_snapshot_revision", "Revision in the snapshot file; 0 without one", now.snapshot_revision)
    if now.snapshot_age_s is not None:
        yield gauge("tidegate_snapshot_age_seconds", "Time since the snapshot file was written", now.snapshot_age_s)


def of_store_size(statistics: StoreStatistics) -> Iterator[Metric]:
    """Metrics of the store's size and load."""
    size = statistics.size
    if size is not None:
        yield gauge("tidegate_store_keys", "Keys in the store", size.keys)
        yield gauge("tidegate_store_memory_bytes", "Memory that the store uses", size.used_bytes)
        yield gauge("tidegate_store_memory_limit_bytes", "Memory that it may use; 0: no bound", size.max_bytes)
        yield counter("tidegate_store_commands", "Commands that its servers processed", size.commands)
        yield counter("tidegate_store_evicted_keys", "Keys that its servers evicted: lost counts", size.evicted)


def of_samples(log: DenialLog, ring: DenialRing | None, tracing: Tracing | None) -> Iterator[Metric]:
    """Denials and traces that are kept or sent."""
    yield counter("tidegate_denials_logged", "Denials in the log", log.logged)
    yield counter("tidegate_denials_not_logged", "Denials left out: the log is a sample", log.left_out)
    kept, not_kept = (0, 0) if ring is None else (ring.kept, ring.not_kept)
    yield counter("tidegate_denials_kept", "Denials in the region's ring", kept)
    yield counter("tidegate_denials_not_kept", "Denials for which the ring had no room", not_kept)
    sent, dropped = (0, 0) if tracing is None else (tracing.sent, tracing.dropped)
    yield counter("tidegate_spans_sent", "Spans that the collector took", sent)
    yield counter("tidegate_spans_dropped", "Spans that nobody took", dropped)


def of_store(store: RedisCounterStore) -> Iterator[Metric]:
    """Metrics of the region's store."""
    stats, status = store.stats, store.status()
    yield gauge("tidegate_store_usable", "1 while every shard decides", status.usable)
    yield counter_by("rate_limit_redis_errors", "Decisions that the store did not answer", "reason", stats.errors)
    yield counter("tidegate_store_decisions", "Decisions that the store answered", stats.decisions)
    yield counter("tidegate_store_calls", "Script calls sent; one carries many decisions", stats.batches)
    yield counter("tidegate_store_late_replies", "Script calls answered after their deadline", stats.late_replies)
    yield counter("tidegate_store_connects", "Connections opened", stats.connects)
    yield counter("tidegate_store_connect_failures", "Attempts to connect that failed", stats.connect_failures)
    opened = stats.circuits_opened_before + sum(shard.circuit_opened for shard in status.shards)
    yield counter("tidegate_store_circuit_opened", "Times that a circuit opened", opened)
    yield counter("tidegate_store_redirects", "MOVED and ASK of a Cluster", stats.redirects)
    yield counter("tidegate_store_given_back", "Checks given back: denied in another slot, or late", stats.given_back)


def of_agents(live: int) -> Iterator[Metric]:
    """The region's agents."""
    yield gauge("tidegate_region_agents", "Live agents of this region, as this node sees them", live)


def of_region_view(
    peers: Iterable[str], unreachable: Collection[str], *, proven: bool, refused_by_marker: int
) -> Iterator[Metric]:
    """What a node knows of its region: peers and strict limits."""
    yield gauge_by(
        "tidegate_peer_silent", "1 while a peer is unreachable and its share is reserved", "peer",
        {name: float(name in unreachable) for name in peers},
    )  # fmt: skip
    yield gauge("tidegate_shares_proven", "1 once strict limits are served by proven shares", proven)
    yield counter_by(
        "tidegate_rights_refused", "Strict steps refused, by reason", "reason", {"marker": refused_by_marker}
    )


class PeerFigures(NamedTuple):
    """The exchange now; ``staleness_s`` is by peer the age of its oldest counts here."""

    tally: ReplicationTally
    wire: HttpPeers
    handler: PeerHandler
    staleness_s: Mapping[str, float]
    unreachable: Sequence[str]
    slices: int


def of_peers(now: PeerFigures) -> Iterator[Metric]:
    """Counts sent and received, and overshoots found by merges."""
    tally, wire, handler = now.tally, now.wire, now.handler
    yield counter("tidegate_peer_cells_sent", "Cells sent to other regions", tally.sent_cells)
    yield counter("tidegate_peer_cells_handed_back", "Cells that lost stores got back", tally.handed_back_cells)
    yield counter("tidegate_peer_bytes_sent", "Bytes sent to other regions", wire.sent_bytes)
    yield counter("tidegate_peer_bytes_received", "Bytes of other regions' messages and answers",
                  handler.received_bytes + wire.received_bytes)  # fmt: skip
    yield counter("tidegate_peer_messages_sent", "Messages sent to other regions", wire.messages)
    yield counter("tidegate_peer_messages_received", "Messages of other regions", handler.received)
    yield counter_by("tidegate_peer_failures", "Messages that a peer did not acknowledge", "peer", tally.failures)
    yield counter_by(
        "tidegate_peer_messages_refused", "Messages of peers refused", "reason",
        {**handler.refused_by_reason, "implausible_cell": tally.implausible},
    )  # fmt: skip
    yield counter("tidegate_peer_messages_repeated", "Messages of peers received before", tally.repeated)
    yield gauge_by("tidegate_peer_staleness_seconds", "Age of a peer's oldest counts here", "peer", now.staleness_s)
    yield gauge_by(
        "tidegate_peer_silent", "1 while a peer is unreachable and its share is reserved", "peer",
        {name: float(name in now.unreachable) for name in now.staleness_s},
    )  # fmt: skip
    yield counter_by("tidegate_peer_silences", "Times that a peer became unreachable", "peer", tally.silences)
    yield gauge("tidegate_peer_slices", "Slices of counters that this agent sends", now.slices)
    yield counter("tidegate_peer_sweeps", "Times that everything was sent again", tally.sweeps)
    yield counter("rate_limit_overshoots", "Merges that found a counter over its limit", tally.over)
    yield gauge("rate_limit_overshoot_most_units", "Most units over a limit found by a merge", tally.most_over)


def of_rights(tally: RightsTally, held: Mapping[str, int]) -> Iterator[Metric]:
    """Rights asked for, received, given and held."""
    yield counter_by("tidegate_rights_asked", "Requests sent for rights", "peer", tally.asked)
    yield counter_by("tidegate_rights_messages", "Messages with requests for rights", "peer", tally.messages)
    yield counter_by("tidegate_rights_questions", "Requests of peers answered", "peer", tally.questions)
    yield counter_by("tidegate_rights_received_units", "Rights received", "peer", tally.units_received)
    yield counter_by("tidegate_rights_given_units", "Rights given", "peer", tally.units_given)
    yield gauge_by("tidegate_rights_held_units", "Rights of counters asked for in the last minute", "limit", held)
    yield counter_by("tidegate_rights_failures", "Requests that a peer did not answer", "peer", tally.failures)
    yield counter_by("tidegate_rights_refused", "Strict steps refused, by reason", "reason", tally.refused)


def of_usage(flusher: UsageFlusher, stream_bytes: int) -> Iterator[Metric]:
    """A node's usage on its way to the region's stream."""
    yield counter("tidegate_usage_requests", "Requests whose usage is in the stream", flusher.flushed_requests)
    yield counter("tidegate_usage_lost_requests", "Requests whose usage could not be held", flusher.lost_requests)
    yield gauge("tidegate_usage_held_cells", "Cells of usage in this node's memory only", flusher.held_cells)
    yield gauge("tidegate_usage_stream_full", "1 while the stream is at its bound", flusher.stream_full)
    yield gauge("tidegate_usage_stream_bytes", "Size of the region's stream of usage", stream_bytes)


def of_shipping(shipper: UsageShipper) -> Iterator[Metric]:
    """A region's usage on its way to the control plane."""
    yield gauge("tidegate_usage_lag_seconds", "Age of the oldest batch that waits to be shipped", shipper.lag_s)
    yield counter("tidegate_usage_batches_shipped", "Batches that the control plane has", shipper.shipped_batches)
    yield counter("tidegate_usage_batches_refused", "Batches that were set aside", shipper.refused_batches)
    yield counter("tidegate_usage_ship_failures", "Shipments that failed", shipper.failures)


def of_load(loads: Sequence[BackendLoad], gates: Gates, reports: LoadReports) -> Iterator[Metric]:
    """Adaptive limits as a node applies them."""
    yield from _factors(loads)
    yield _units("tidegate_load_offered_units", "Units asked for at backends", gates.offered())
    yield _units("tidegate_load_own_units", "Of these: units that clients' own limits deny", gates.own())
    yield _units("tidegate_load_shed_units", "Units shed by class", gates.shed())
    yield counter("tidegate_load_reports_taken", "Reports of load that were taken", reports.taken)
    yield counter_by("tidegate_load_reports_refused", "Reports of load that were refused", "reason", reports.refused)


def of_load_deciding(decider: LoadDecider) -> Iterator[Metric]:
    """Adaptive limits as an agent decides them."""
    yield gauge("tidegate_load_deciding", "1 while this agent decides for its region", decider.deciding)
    yield counter_by("tidegate_load_pull_failures", "Queries that gave no signal", "reason", decider.pull_failures)


def _latency(tally: Tally) -> HistogramMetricFamily:
    buckets, total = [], 0
    for bound_us, count in zip((*LATENCY_BUCKETS_US, None), tally.latency_counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound_us is None else str(bound_us / 1_000_000), float(total)))
    return HistogramMetricFamily(
        "rate_limit_check_duration_seconds", "Time from the understood request to its decision",
        buckets=buckets, sum_value=tally.latency_sum_us / 1_000_000,
    )  # fmt: skip


def _labels(name: str, region: str) -> dict[str, str]:
    return {"node": name, "region": region, "version": version("tidegate")}


def _units(name: str, help_text: str, units: Mapping[tuple[str, int], int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=["backend", "priority"])
    for (backend, priority), count in list(units.items())[:MOST_LABEL_VALUES]:
        family.add_metric([backend, str(priority)], count)
    return family


def _factors(loads: Sequence[BackendLoad]) -> Iterator[Metric]:
    """Each backend's factor and its reason."""
    yield gauge_by(
        "tidegate_load_factor", "Share that is admitted at a backend", "backend",
        {load.backend: load.factor for load in loads},
    )  # fmt: skip
    yield gauge_by(
        "tidegate_load", "Smoothed load of a backend; 1 is full", "backend",
        {load.backend: load.load for load in loads if load.load is not None},
    )  # fmt: skip
    yield gauge_by(
        "tidegate_load_reporters", "Reporters of a backend's load that are fresh", "backend",
        {load.backend: load.reporters for load in loads},
    )  # fmt: skip
    yield gauge_by(
        "tidegate_load_factor_since_timestamp_seconds", "When the share that is admitted last changed", "backend",
        {load.backend: load.since for load in loads if load.since},
    )  # fmt: skip
    reasons = GaugeMetricFamily(
        "tidegate_load_reason", "1: why the share is what it is, and by which signal",
        labels=["backend", "reason", "signal"],
    )  # fmt: skip
    for load in loads[:MOST_LABEL_VALUES]:
        reasons.add_metric([load.backend, load.reason, load.signal or "none"], 1)
    yield reasons
    classes = GaugeMetricFamily(
        "tidegate_load_class_factor", "Share of a class that is admitted", labels=["backend", "priority"]
    )
    for load in loads[:MOST_LABEL_VALUES]:
        for load_class in load.classes:
            classes.add_metric([load.backend, str(load_class.priority)], load_class.factor)
    yield classes
