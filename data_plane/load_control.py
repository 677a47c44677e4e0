"""Adaptive limits, wired: a node takes reports and applies factors, an agent decides factors."""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from data_plane.config.rulebook import Rulebook
from data_plane.http.load_handler import LoadHandler
from data_plane.load.deciding import LoadDecider
from data_plane.load.factor_store import RedisFactorStore
from data_plane.load.following import Gates, LoadFollower
from data_plane.load.http_clients import HttpLoadReporting, PrometheusServers
from data_plane.load.reports import LoadReports
from data_plane.load.shared import explain_all
from data_plane.metrics.exposition import MOST_LABEL_VALUES, counter, counter_by, gauge, gauge_by
from data_plane.replicate.http_peers import tls_of
from data_plane.settings import AgentSettings, Settings
from data_plane.store.ports import Clock
from data_plane.store.redis.store import RedisCounterStore
from tidegate.contract.load import BackendLoad


class NodeLoadControl:
    """A node's side. The decider uses ``gates``; ``handler`` takes reports."""

    def __init__(
        self, settings: Settings, store: RedisCounterStore, clock: Clock, book: Callable[[], Rulebook]
    ) -> None:
        self.gates = Gates()
        self._reports = LoadReports(settings.node)
        self.handler = LoadHandler(book, self._reports, clock, settings.trust)
        factor_store = RedisFactorStore(store, settings.node)
        self._follower = LoadFollower(settings.node, factor_store, self.gates, self._reports, clock, book)

    def work(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """The background work."""
        return [self._follower.run]

    def status(self) -> Mapping[str, Any]:
        """Every backend's factor and its reason, for ``/v1/status``."""
        return {"adaptive": {"backends": [msgspec.to_builtins(load) for load in explain_all(self._follower.shared)]}}

    def families(self) -> Iterator[Metric]:
        """The metrics of adaptive limits."""
        yield from _factors(explain_all(self._follower.shared))
        yield from self._units("tidegate_load_offered_units", "Units asked for at backends", self.gates.offered())
        yield from self._units(
            "tidegate_load_own_units", "Of these: units that clients' own limits deny", self.gates.own()
        )
        yield from self._units("tidegate_load_shed_units", "Units shed by class", self.gates.shed())
        yield counter("tidegate_load_reports_taken", "Reports of load that were taken", self._reports.taken)
        yield counter_by(
            "tidegate_load_reports_refused", "Reports of load that were refused", "reason", self._reports.refused
        )

    def _units(self, name: str, help_text: str, units: Mapping[tuple[str, int], int]) -> Iterator[Metric]:
        family = CounterMetricFamily(name, help_text, labels=["backend", "priority"])
        for (backend, priority), count in list(units.items())[:MOST_LABEL_VALUES]:
            family.add_metric([backend, str(priority)], count)
        yield family


class AgentLoadControl:
    """An agent's side: decides while it holds the lease."""

    def __init__(
        self, settings: AgentSettings, store: RedisCounterStore, clock: Clock, book: Callable[[], Rulebook]
    ) -> None:
        self._servers = PrometheusServers(settings.load_server_urls())
        credential = settings.region_credential.get_secret_value()
        tls = tls_of(settings.control_plane_ca_file, None, None)
        self._usage = HttpLoadReporting(settings.control_plane_url, credential, tls)
        self._decider = LoadDecider(
            settings.node, RedisFactorStore(store, settings.node), LoadReports(settings.node), self._servers,
            self._usage, clock, book,
        )  # fmt: skip

    def work(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """The background work."""
        return [self._decider.run, self._decider.run_pulls, self._decider.run_reports]

    async def hand_over(self) -> None:
        """Release the lease, so that another agent decides at once."""
        await self._decider.hand_over()

    async def stop(self) -> None:
        """Close connections."""
        await self._servers.close()
        await self._usage.close()

    def status(self) -> Mapping[str, Any]:
        """Every backend's factor and its reason, for ``/v1/status``; empty while another agent decides."""
        loads = [msgspec.to_builtins(load) for load in self._decider.loads()]
        return {"adaptive": {"deciding": self._decider.deciding, "backends": loads}}

    def families(self) -> Iterator[Metric]:
        """The metrics of adaptive limits."""
        yield gauge("tidegate_load_deciding", "1 while this agent decides for its region", self._decider.deciding)
        yield counter_by(
            "tidegate_load_pull_failures", "Queries that gave no signal", "reason", self._decider.pull_failures
        )


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
