"""One region agent, wired: it does the work of the region as a whole, and answers no decisions.

Two or more run; leases in the region's store divide the work, so that any may end at any time.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from fastapi import Response

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Decided, Snapshot
from data_plane.configuration import Configuration
from data_plane.load_control import AgentLoadControl
from data_plane.metrics.exposition import CONTENT_TYPE, NodeMetrics
from data_plane.metrics.of_nodes import of_store_size
from data_plane.observability import of_store, who
from data_plane.peering import Peering
from data_plane.process import SystemClock, cancelled, run_forever
from data_plane.settings import AgentSettings
from data_plane.store.membership import AGENTS, AgentMembership, RedisNodeRegister
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.statistics import Census
from data_plane.usage_flow import AgentUsage


class Agent:
    """The parts of one agent, wired. Make it on the event loop."""

    def __init__(self, settings: AgentSettings) -> None:
        clock = SystemClock()
        self.settings = settings
        self.draining = False
        """Set once the agent is asked to stop: it still answers, and is no longer ready."""
        self._index = RuleIndex.empty(settings.region)
        self._peering = Peering(settings, clock, self._index_in_force)
        self._store = RedisCounterStore(settings.store_settings(), join=self._peering.join)
        self._membership = AgentMembership(settings.node, RedisNodeRegister(self._store, AGENTS), clock)
        self._configuration = Configuration(
            settings, "agent", self._store, clock, self._applied, lambda: Decided(0, 0, 0), self._peering.confirmed,
        )  # fmt: skip
        self._peering.connect(
            self._store, self._membership.live_nodes, self._configuration.in_force, self._configuration.newest
        )
        self.peer_handler = self._peering.handler
        self._usage = AgentUsage(
            settings,
            self._store,
            clock,
            self._index_in_force,
            lambda: self._configuration.revision,
            self._peering.exchange,
        )
        self._load_control = AgentLoadControl(settings, self._store, clock, lambda: self._index.book)
        self._census = Census(self._store)
        self._metrics = NodeMetrics()
        self._metrics.add(
            who("tidegate_agent_info", "Which agent this is", settings), self._configuration.families,
            of_store(self._store), of_store_size(self._census), self._peering.families, self._usage.families,
            self._load_control.families,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the agent between enter and exit: connect the store and run the background work."""
        self._configuration.restore()
        work: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *self._configuration.work(), self._membership.run, *self._peering.work(self._configuration.send_eventually),
            *self._usage.work(), *self._load_control.work(), self._census.run,
        ]  # fmt: skip
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._store.start()
            tasks += [asyncio.create_task(run_forever(job)) for job in work]
            yield
        finally:
            await cancelled(tasks)
            await self._membership.leave()
            await self._peering.hand_over()
            await self._usage.hand_over()
            await self._load_control.hand_over()
            await self._configuration.stop()
            await self._usage.stop()
            await self._load_control.stop()
            await self._peering.stop()
            await self._store.close()

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        return {
            "agent": self.settings.node,
            "region": self.settings.region,
            "version": version("tidegate"),
            **self._configuration.status(),
            "store": asdict(self._store.status()),
            **self._peering.status(),
            "live_agents": self._membership.live_nodes(),
            **self._load_control.status(),
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether peers should connect here, and the body of ``/readyz``: ready with a configuration and a store."""
        missing = ["config"] if not self._configuration.revision else []
        if not self._store.stats.connects:
            missing.append("store")
        is_ready = not (missing or self.draining)
        body = {
            "ready": is_ready,
            "revision": self._configuration.revision,
            "degraded": not self._store.status().usable,
        }
        return is_ready, body if is_ready else {**body, "draining": self.draining, "missing": missing}

    def metrics(self) -> Response:
        """The answer of ``/metrics``."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)

    def _index_in_force(self) -> RuleIndex:
        return self._index

    def _applied(self, index: RuleIndex, snapshot: Snapshot) -> None:
        self._index = index
        self._peering.applied(index, snapshot.revision)
