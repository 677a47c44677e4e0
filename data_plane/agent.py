"""One region agent, wired: it does the work of the region as a whole, and answers no decisions.

Two or more run; leases in the region's store divide the work, so that any may end at any time.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import Response

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Decided, Snapshot
from data_plane.configuration import Configuration
from data_plane.load_control import AgentLoadControl
from data_plane.metrics.exposition import CONTENT_TYPE, NodeMetrics
from data_plane.metrics.families import of_agent, of_store, of_store_size
from data_plane.peering import Peering
from data_plane.process import Job, SystemClock, working
from data_plane.region_view import epoch_join
from data_plane.settings import AgentSettings
from data_plane.store.membership import AGENTS, AgentMembership, RedisNodeRegister
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.statistics import StoreStatistics
from data_plane.usage_flow import AgentUsage
from tidegate.contract.config import Ack


class Agent:
    """The parts of one agent, wired. Make it on the event loop."""

    def __init__(self, settings: AgentSettings) -> None:
        clock = SystemClock()
        self.settings = settings
        self.draining = False
        """Set once the agent is asked to stop: it still answers, and is no longer ready."""
        self._index = RuleIndex.empty(settings.region)
        joined = epoch_join(settings)
        self.store = RedisCounterStore(settings.store_settings(), join=joined)
        self._membership = AgentMembership(settings.node, RedisNodeRegister(self.store, AGENTS), clock)
        self.configuration = Configuration(
            settings, "agent", self.store, clock, (self._applied,), lambda: Decided(0, 0, 0), self._confirmed,
        )  # fmt: skip
        self.peering = Peering(
            settings, clock, self._index_in_force, self.store, joined, self._membership.live_nodes,
            self.configuration.in_force, self.configuration.newest,
        )  # fmt: skip
        self.peer_handler = self.peering.handler
        self._usage = AgentUsage(
            settings,
            self.store,
            clock,
            self._index_in_force,
            lambda: self.configuration.revision,
            self.peering.exchange,
        )
        self._load_control = AgentLoadControl(settings, self.store, clock, lambda: self._index.book)
        self._statistics = StoreStatistics(self.store)
        self._metrics = NodeMetrics()
        self._metrics.add(
            partial(of_agent, settings.node, settings.region), self.configuration.families,
            partial(of_store, self.store), partial(of_store_size, self._statistics), self.peering.families,
            self._usage.families, self._load_control.families,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the agent between enter and exit: connect the store and run the background work."""
        self.configuration.restore()
        work: list[Job] = [
            *self.configuration.work(), self._membership.run, *self.peering.work(self.configuration.send_eventually),
            *self._usage.work(), *self._load_control.work(), self._statistics.run,
        ]  # fmt: skip
        ends = (
            self._membership.leave, self.peering.hand_over, self._usage.hand_over, self._load_control.hand_over,
            self.configuration.stop, self._usage.stop, self._load_control.stop, self.peering.stop, self.store.close,
        )  # fmt: skip
        async with working(self.store.start, work, ends):
            yield

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        return {
            "agent": self.settings.node,
            "region": self.settings.region,
            "version": version("tidegate"),
            **self.configuration.status(),
            "store": asdict(self.store.status()),
            **self.peering.status(),
            "live_agents": self._membership.live_nodes(),
            **self._load_control.status(),
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether peers should connect here, and the body of ``/readyz``: ready with a configuration and a store."""
        missing = ["config"] if not self.configuration.revision else []
        if not self.store.stats.connects:
            missing.append("store")
        is_ready = not (missing or self.draining)
        body = {
            "ready": is_ready,
            "revision": self.configuration.revision,
            "degraded": not self.store.status().usable,
        }
        return is_ready, body if is_ready else {**body, "draining": self.draining, "missing": missing}

    def metrics(self) -> Response:
        """The answer of ``/metrics``."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)

    def _index_in_force(self) -> RuleIndex:
        return self._index

    def _applied(self, index: RuleIndex, snapshot: Snapshot) -> None:
        self._index = index
        self.peering.applied(index, snapshot)

    async def _confirmed(self, ack: Ack) -> Ack:
        return await self.peering.confirmed(ack)
