"""Observability of a node, wired: metrics, and by the settings denials (a ring, a sampled log) and traces."""

import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from importlib.metadata import version
from typing import Any

from prometheus_client.core import Metric

from data_plane.decide.decider import Decider
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.denial_ring import DenialRing
from data_plane.decide.redis_denials import RedisDenials
from data_plane.decide.tracing import Tracing
from data_plane.metrics.exposition import NodeMetrics, Part, counter, counter_by, gauge, info
from data_plane.metrics.of_nodes import of_decisions
from data_plane.settings import RegionSettings, Settings
from data_plane.store.ports import Clock
from data_plane.store.redis.store import RedisCounterStore


class Observability:
    """A node's metrics, denials and traces."""

    def __init__(self, settings: Settings, clock: Clock, decider: Decider, store: RedisCounterStore) -> None:
        self._settings = settings
        ring_bytes = settings.denials_max_mb * 1024 * 1024
        self.ring = DenialRing(settings.node, RedisDenials(store, ring_bytes)) if ring_bytes else None
        self.denial_log = DenialLog(settings.log_denials_per_s, self.ring)
        if settings.log_denials_per_s or self.ring is not None:
            decider.on_concluded = (*decider.on_concluded, self.denial_log.concluded)
            decider.on_refused = (*decider.on_refused, self.denial_log.refused)
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
            decider.observers = (*decider.observers, self._tracing)
        self.metrics = NodeMetrics()
        self.metrics.add(
            who("tidegate_node_info", "Which node this is", settings), of_decisions(decider.tally), self._of_samples,
            of_store(store),
        )  # fmt: skip

    def add(self, *parts: Part) -> None:
        """Add parts to the metrics."""
        self.metrics.add(*parts)

    def work(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
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
        yield counter("tidegate_denials_logged", "Denials in the log", self.denial_log.logged)
        yield counter("tidegate_denials_not_logged", "Denials left out: the log is a sample", self.denial_log.left_out)
        kept, not_kept = (0, 0) if self.ring is None else (self.ring.kept, self.ring.not_kept)
        yield counter("tidegate_denials_kept", "Denials in the region's ring", kept)
        yield counter("tidegate_denials_not_kept", "Denials for which the ring had no room", not_kept)
        sent, dropped = (0, 0) if self._tracing is None else (self._tracing.sent, self._tracing.dropped)
        yield counter("tidegate_spans_sent", "Spans that the collector took", sent)
        yield counter("tidegate_spans_dropped", "Spans that nobody took", dropped)


def who(name: str, help_text: str, settings: RegionSettings) -> Part:
    """The name, region and version of this process."""
    labels = {"node": settings.node, "region": settings.region, "version": version("tidegate")}
    return lambda: iter((info(name, help_text, labels),))


def of_store(store: RedisCounterStore) -> Part:
    """Metrics of the region's store."""

    def families() -> Iterator[Metric]:
        stats, status = store.stats, store.status()
        yield gauge("tidegate_store_usable", "1 while every shard decides", status.usable)
        yield counter_by("rate_limit_redis_errors", "Decisions that the store did not answer", "reason", stats.errors)
        yield counter("tidegate_store_decisions", "Decisions that the store answered", stats.decisions)
        yield counter("tidegate_store_calls", "Script calls sent; one carries many decisions", stats.batches)
        yield counter("tidegate_store_late_replies", "Script calls answered after their deadline", stats.late_replies)
        yield counter("tidegate_store_connects", "Connections opened", stats.connects)
        yield counter("tidegate_store_connect_failures", "Attempts to connect that failed", stats.connect_failures)
        opened = sum(shard.circuit_opened for shard in status.shards)
        yield counter("tidegate_store_circuit_opened", "Times that a circuit opened", opened)
        yield counter("tidegate_store_redirects", "MOVED and ASK of a Cluster", stats.redirects)
        yield counter(
            "tidegate_store_given_back", "Checks given back: denied in another slot, or late", stats.given_back
        )

    return families
