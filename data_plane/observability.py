"""Observability of a node, wired: metrics, and by the settings denials (a ring, a sampled log) and traces."""

import random
import secrets
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version

from prometheus_client.core import Metric

from data_plane.decide.decider import Observer
from data_plane.decide.decision_tally import Tally
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.denial_ring import DenialRing, RedisDenials
from data_plane.decide.tracing import Tracing
from data_plane.metrics.exposition import NodeMetrics, Part
from data_plane.metrics.families import of_decisions, of_node, of_samples, of_store
from data_plane.process import Job
from data_plane.settings import Settings
from data_plane.store.ports import Clock
from data_plane.store.redis.store import RedisCounterStore


class Observability:
    """A node's metrics, denials and traces. ``tally`` counts the decisions."""

    def __init__(self, settings: Settings, clock: Clock, tally: Tally, store: RedisCounterStore) -> None:
        ring_bytes = settings.denials_max_mb * 1024 * 1024
        self.ring = DenialRing(settings.node, RedisDenials(store, ring_bytes)) if ring_bytes else None
        self.denial_log = DenialLog(settings.log_denials_per_s, self.ring)
        self._tracing: Tracing | None = None
        if settings.traces_url is not None:
            about = {
                "service.name": "tidegate-node", "service.version": version("tidegate"),
                "service.instance.id": settings.node, "tidegate.region": settings.region,
            }  # fmt: skip
            self._tracing = Tracing(
                settings.traces_url, settings.traces_share, about, follow_caller=settings.traces_follow_caller,
                clock=clock, random=random.random, random_bytes=secrets.token_bytes,
            )  # fmt: skip
        self.metrics = NodeMetrics()
        self.metrics.add(
            partial(of_node, settings.node, settings.region),
            partial(of_decisions, tally), self._of_samples, partial(of_store, store),
        )  # fmt: skip

    @property
    def observers(self) -> tuple[Observer, ...]:
        """What has to see every decision."""
        return () if self._tracing is None else (self._tracing,)

    def add(self, *parts: Part) -> None:
        """Add parts to the metrics."""
        self.metrics.add(*parts)

    def work(self) -> list[Job]:
        """The background work."""
        parts = (self.ring, self._tracing)
        return [part.run for part in parts if part is not None]

    async def stop(self) -> None:
        """Write and send what is pending."""
        if self.ring is not None:
            await self.ring.flush()
        if self._tracing is not None:
            await self._tracing.close()

    def _of_samples(self) -> Iterator[Metric]:
        return of_samples(self.denial_log, self.ring, self._tracing)
