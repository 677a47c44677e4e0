"""What watches a node, wired: its metrics, and as the settings say a sampled log of denials and traces."""

import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from importlib.metadata import version
from typing import Any

from prometheus_client.core import Metric

from data_plane.adapters.control_plane import Link
from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.adapters.snapshot_file import SnapshotFile
from data_plane.adapters.tracing import Tracing
from data_plane.api.metrics import NodeMetrics, Part, counter, info
from data_plane.api.node_metrics import ConfigFigures, StoreFigures, of_config, of_decisions, of_store
from data_plane.services.census import Census
from data_plane.services.config import ConfigService
from data_plane.services.decide import Decider
from data_plane.services.denial_log import DenialLog
from data_plane.services.ports import Clock
from data_plane.settings import Settings


class Observing:
    """``metrics`` takes further parts; ``applied_at_us`` is to be kept up to date (0 before the first revision)."""

    def __init__(
        self, settings: Settings, clock: Clock, decider: Decider, store: RedisCounterStore, census: Census,
        config: ConfigService, link: Link, snapshots: SnapshotFile,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._clock = clock
        self._store = store
        self._census = census
        self._config = config
        self._link = link
        self._snapshots = snapshots
        self.applied_at_us = 0
        self._denials = DenialLog(settings.log_denials_per_s)
        self.denial_log = self._denials if settings.log_denials_per_s else None
        """``None`` where denials are not logged."""
        if settings.log_denials_per_s:
            decider.on_concluded = (*decider.on_concluded, self._denials.concluded)
            decider.on_refused = (*decider.on_refused, self._denials.refused)
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
            self._who, of_decisions(decider.tally), self._of_samples, of_config(self._config_figures),
            of_store(self._store_figures),
        )  # fmt: skip

    def add(self, *parts: Part) -> None:
        """Have these parts scraped too."""
        self.metrics.add(*parts)

    def config_age_s(self) -> float | None:
        """Time since the configuration in force was applied; ``None`` before the first."""
        return (self._clock.now_us() - self.applied_at_us) / 1_000_000 if self.applied_at_us else None

    def work(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What goes on for as long as the node serves."""
        return [self._census.run] if self._tracing is None else [self._census.run, self._tracing.run]

    async def stop(self) -> None:
        """Send what waits."""
        if self._tracing is not None:
            await self._tracing.close()

    def _who(self) -> Iterator[Metric]:
        labels = {"node": self._settings.node, "region": self._settings.region, "version": version("tidegate")}
        yield info("tidegate_node_info", "Which node this is", labels)

    def _of_samples(self) -> Iterator[Metric]:
        yield counter("tidegate_denials_logged", "Denials in the log", self._denials.logged)
        yield counter("tidegate_denials_not_logged", "Denials left out: the log is a sample", self._denials.left_out)
        sent, dropped = (0, 0) if self._tracing is None else (self._tracing.sent, self._tracing.dropped)
        yield counter("tidegate_spans_sent", "Spans that the collector took", sent)
        yield counter("tidegate_spans_dropped", "Spans that nobody took", dropped)

    def _config_figures(self) -> ConfigFigures:
        now_s, link, refused = self._clock.now_us() / 1_000_000, self._link, self._config.refused
        saved_at_s = self._snapshots.saved_at_s
        return ConfigFigures(
            revision=self._config.revision,
            wanted_revision=self._config.wanted_revision,
            age_s=self.config_age_s(),
            refusals=self._config.refusals,
            refused_revision=None if refused is None else refused.revision,
            connected=link.connected,
            silence_s=None if link.heard_at_s is None else now_s - link.heard_at_s,
            reconnects=link.reconnects,
            snapshot_revision=self._snapshots.saved_revision,
            snapshot_age_s=None if saved_at_s is None else now_s - saved_at_s,
        )

    def _store_figures(self) -> StoreFigures:
        stats, status = self._store.stats, self._store.status()
        return StoreFigures(
            usable=status.usable,
            errors_by_reason=stats.errors,
            decisions=stats.decisions,
            calls=stats.batches,
            late_replies=stats.late_replies,
            connects=stats.connects,
            connect_failures=stats.connect_failures,
            circuit_opened=sum(shard.circuit_opened for shard in status.shards),
            redirects=stats.redirects,
            given_back=stats.given_back,
            size=self._census.size,
        )
