"""One agent of a region, wired: what a region does as a whole. It answers no decision.

Two or more run; leases in the region's store divide the work, so any may end at any moment.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from fastapi import Response

from data_plane.background import cancelled, run_forever
from data_plane.clock import SystemClock
from data_plane.config.index import RuleIndex
from data_plane.config.service import Snapshot
from data_plane.config.stream import Decided
from data_plane.configuring import Configuring
from data_plane.metrics.exposition import CONTENT_TYPE, NodeMetrics
from data_plane.metrics.of_nodes import of_store_size
from data_plane.observing import of_store, who
from data_plane.peering import Peering
from data_plane.protecting import LoadControl
from data_plane.reporting import Shipping
from data_plane.settings import AgentSettings
from data_plane.store.membership import AGENTS, AgentMembership, RedisNodeRegister
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.statistics import Census, RedisSurvey


class Agent:
    """The parts of one agent, wired. Make it on the event loop."""

    def __init__(self, settings: AgentSettings) -> None:
        clock = SystemClock()
        self.settings = settings
        self.draining = False
        """Set when it was asked to stop: it answers on, but is not ready any more."""
        self._index = RuleIndex.empty(settings.region)
        self._peering = Peering(settings, clock, self._index_in_force)
        self._store = RedisCounterStore(settings.store_settings(), join=self._peering.join)
        self._membership = AgentMembership(settings.node, RedisNodeRegister(self._store, AGENTS), clock)
        self._configuring = Configuring(
            settings, "agent", self._store, clock, self._applied, lambda: Decided(0, 0, 0), self._peering.confirmed,
        )  # fmt: skip
        self._peering.connect(
            self._store, self._membership.live_nodes, self._configuring.in_force, self._configuring.newest
        )
        self.peer_handler = self._peering.handler
        self._shipping = Shipping(
            settings,
            self._store,
            clock,
            self._index_in_force,
            lambda: self._configuring.revision,
            self._peering.exchange,
        )
        self._load = LoadControl(settings, self._store, clock, lambda: self._index.book)
        self._census = Census(RedisSurvey(self._store))
        self._metrics = NodeMetrics()
        self._metrics.add(
            who("tidegate_agent_info", "Which agent this is", settings), self._configuring.families,
            of_store(self._store), of_store_size(self._census), self._peering.families, self._shipping.families,
            self._load.families,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve between enter and exit: the store is connected, the background work goes on."""
        self._configuring.restore()
        work: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *self._configuring.work(), self._membership.run, *self._peering.work(self._configuring.say_soon),
            *self._shipping.work(), *self._load.work(), self._census.run,
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
            await self._shipping.hand_over()
            await self._load.hand_over()
            await self._configuring.stop()
            await self._shipping.stop()
            await self._load.stop()
            await self._peering.stop()
            await self._store.close()

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        return {
            "agent": self.settings.node,
            "region": self.settings.region,
            "version": version("tidegate"),
            **self._configuring.status(),
            "store": asdict(self._store.status()),
            **self._peering.status(),
            "live_agents": self._membership.live_nodes(),
            **self._load.status(),
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether peers should be sent here, and the body of ``/readyz``: a configuration, and a store once reached."""
        missing = ["config"] if not self._configuring.revision else []
        if not self._store.stats.connects:
            missing.append("store")
        is_ready = not (missing or self.draining)
        body = {
            "ready": is_ready,
            "revision": self._configuring.revision,
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
