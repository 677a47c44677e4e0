"""Adaptive limits, wired: a node takes reports and applies factors, an agent decides factors."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client.core import Metric

from data_plane.config.rulebook import Rulebook
from data_plane.http.load_handler import LoadHandler
from data_plane.load.controller import explain_all
from data_plane.load.deciding import LoadDecider
from data_plane.load.following import Gates, LoadFollower, LoadReports, RedisFactorStore
from data_plane.load.http_clients import HttpLoadReporting, PrometheusServers
from data_plane.metrics.families import of_load, of_load_deciding
from data_plane.process import Job, tls_of
from data_plane.settings import AgentSettings, Settings
from data_plane.store.ports import Clock
from data_plane.store.redis.store import RedisCounterStore


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

    def work(self) -> list[Job]:
        """The background work."""
        return [self._follower.run]

    def status(self) -> Mapping[str, Any]:
        """Every backend's factor and its reason, for ``/v1/status``."""
        return {"adaptive": {"backends": [msgspec.to_builtins(load) for load in explain_all(self._follower.shared)]}}

    def families(self) -> Iterator[Metric]:
        """The metrics of adaptive limits."""
        return of_load(explain_all(self._follower.shared), self.gates, self._reports)


class AgentLoadControl:
    """An agent's side: decides while it holds the lease."""

    def __init__(
        self, settings: AgentSettings, store: RedisCounterStore, clock: Clock, book: Callable[[], Rulebook]
    ) -> None:
        self._servers = PrometheusServers(settings.load_server_urls())
        credential = settings.region_credential.get_secret_value()
        tls = tls_of(settings.control_plane_tls())
        self._reporting = HttpLoadReporting(settings.control_plane_url, credential, tls)
        self._decider = LoadDecider(
            settings.node, RedisFactorStore(store, settings.node), LoadReports(settings.node), self._servers,
            self._reporting, clock, book,
        )  # fmt: skip

    def work(self) -> list[Job]:
        """The background work."""
        return [self._decider.run, self._decider.run_pulls, self._decider.run_reports]

    async def hand_over(self) -> None:
        """Release the lease, so that another agent decides at once."""
        await self._decider.hand_over()

    async def stop(self) -> None:
        """Close connections."""
        await self._servers.close()
        await self._reporting.close()

    def status(self) -> Mapping[str, Any]:
        """Every backend's factor and its reason, for ``/v1/status``; empty while another agent decides."""
        loads = [msgspec.to_builtins(load) for load in self._decider.loads()]
        return {"adaptive": {"deciding": self._decider.deciding, "backends": loads}}

    def families(self) -> Iterator[Metric]:
        """The metrics of adaptive limits."""
        return of_load_deciding(self._decider)
