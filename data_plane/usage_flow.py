"""Usage, wired: a node writes it to the region's stream; an agent ships it and answers questions."""

import asyncio
import random
from collections.abc import Callable, Iterator

import structlog
from prometheus_client.core import Metric

from data_plane.config.index import RuleIndex
from data_plane.decide.denial_ring import RedisDenials
from data_plane.metrics.families import of_shipping, of_usage
from data_plane.process import Job, tls_of
from data_plane.settings import RegionSettings
from data_plane.store.ports import Clock
from data_plane.store.redis.store import RedisCounterStore
from data_plane.usage.answering import QuestionAnswerer
from data_plane.usage.stream import HttpUsageSink, RedisUsageStream, UsageShipper
from data_plane.usage.tally import UsageFlusher, UsageTally
from tidegate.contract.questions import RegionExchange

log = structlog.get_logger()
STOP_WITHIN_S = 3.0


class NodeUsage:
    """A node's side. ``tally`` is an observer of the decider.

    ``incarnation`` names this run of the process: hex digits that no other run has.
    """

    def __init__(self, settings: RegionSettings, store: RedisCounterStore, clock: Clock, incarnation: str) -> None:
        self.tally = UsageTally()
        self._stream = RedisUsageStream(store, settings.usage_stream_max_mb * 1024 * 1024, clock)
        self._flusher = UsageFlusher(settings.node, incarnation, self.tally, self._stream, clock)

    def work(self) -> list[Job]:
        """The background work."""
        return [self._flusher.run]

    async def stop(self) -> None:
        """Flush the last counts to the stream, from which an agent ships them."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._flusher.flush()
        except TimeoutError:
            log.error("usage_not_flushed_at_the_end", cells=self._flusher.held_cells)

    def families(self) -> Iterator[Metric]:
        """The metrics of usage."""
        return of_usage(self._flusher, self._stream.bytes)


class AgentUsage:
    """An agent's side. ``index`` and ``revision`` are what is in force; ``exchange`` is the state towards peers."""

    def __init__(
        self, settings: RegionSettings, store: RedisCounterStore, clock: Clock,
        index: Callable[[], RuleIndex], revision: Callable[[], int], exchange: Callable[[], RegionExchange],
    ) -> None:  # fmt: skip
        stream = RedisUsageStream(store, settings.usage_stream_max_mb * 1024 * 1024, clock)
        self._sink = HttpUsageSink(
            settings.control_plane_url, settings.region_credential.get_secret_value(), settings.node, settings.region,
            tls_of(settings.control_plane_tls()),
        )  # fmt: skip
        self._shipper = UsageShipper(settings.node, stream, self._sink, clock, random.random)
        self._answerer = QuestionAnswerer(
            settings.node, self._sink, store, clock, index, revision, lambda: self._shipper.has_lease,
            self._shipper.ship_all_until_now, RedisDenials(store), exchange,
        )  # fmt: skip

    def work(self) -> list[Job]:
        """The background work."""
        return [self._shipper.run, self._answerer.run]

    async def hand_over(self) -> None:
        """Release the lease, so that another agent ships at once."""
        await self._shipper.hand_over()

    async def stop(self) -> None:
        """Close the connections to the control plane."""
        await self._sink.close()

    def families(self) -> Iterator[Metric]:
        """The metrics of usage."""
        return of_shipping(self._shipper)
