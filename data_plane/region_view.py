"""A node's view of its region, wired: unreachable peers, proven shares, low counters."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import Metric

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Snapshot
from data_plane.metrics.families import of_region_view
from data_plane.process import Job
from data_plane.replicate.count_store import CountStore
from data_plane.replicate.peer_session import ReplicationTally
from data_plane.replicate.receiver import Receiver
from data_plane.rights.epoch_store import EpochJoin, RedisEpochs
from data_plane.rights.low_water import LowOutbox
from data_plane.rights.region_state import RegionState
from data_plane.rights.watch import RegionWatch, StrictReader
from data_plane.settings import RegionSettings, Settings
from data_plane.store.ports import Clock
from data_plane.store.redis.store import RedisCounterStore
from tidegate.contract.credentials import epoch_secret

PROOF_WAIT_S = 5.0
"""For how long a node that starts is not ready while its shares are not proven."""


class RegionView:
    """A node's view of its region. ``joined`` joins the connections of ``store``; ``None`` where rights do not move."""

    def __init__(
        self, settings: Settings, clock: Clock, index: Callable[[], RuleIndex], store: RedisCounterStore,
        joined: EpochJoin | None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._clock = clock
        self._index = index
        self.joined = joined
        self.state = RegionState(lambda: index().book, rights=joined is not None)
        self._waits_until_s: float | None = None
        self._outbox = LowOutbox(store, clock)
        self.reader = StrictReader(self._outbox.add)
        secret = epoch_secret(settings.region_credential.get_secret_value())
        self._peers = Receiver(
            settings.region, CountStore(store, settings.node, secret), clock, index, ReplicationTally(),
            self.state.set_unreachable,
        )  # fmt: skip
        epochs = None if joined is None else RedisEpochs(settings.node, store, joined)
        self._watch = RegionWatch(self.state, self._peers, epochs, clock)

    def applied(self, index: RuleIndex, snapshot: Snapshot) -> None:
        """Take over a configuration that is about to be in force."""
        self.state.apply(index, snapshot.revision)
        if self._waits_until_s is None:
            self._waits_until_s = asyncio.get_running_loop().time() + PROOF_WAIT_S

    @property
    def waits_for_proof(self) -> bool:
        """Whether the node has just started and denies strict limits, as its shares are not proven yet."""
        if self.state.proven or not self.state.strict or self._waits_until_s is None:
            return False
        return asyncio.get_running_loop().time() < self._waits_until_s

    def work(self) -> list[Job]:
        """The background work."""
        return [self._watch.run, self._outbox.run]

    def own_public_keys(self) -> tuple[str, ...]:
        """Public keys of this region: several while its credential is rotated."""
        return public_keys(self._index, self._clock, self._settings.region)

    def status(self) -> dict[str, Any]:
        """Peers and strict limits in ``/v1/status``."""
        unreachable = dict(self.state.unreachable)
        return {
            "peers": {
                region: {"staleness_s": None if age_us is None else age_us / 1e6, "silent": region in unreachable}
                for region, age_us in self._peers.staleness_us.items()
            },
            "rights": {
                "proven": self.state.proven,
                "incarnation": None if self.joined is None else self.joined.incarnation,
                "new_lives": None if self.joined is None else self.joined.new_epochs,
                "refused": {"marker": self.reader.refused},
            },
        }

    def families(self) -> Iterator[Metric]:
        """The metrics of peers and strict limits."""
        return of_region_view(
            self._peers.staleness_us, dict(self.state.unreachable), proven=self.state.proven,
            refused_by_marker=self.reader.refused,
        )  # fmt: skip


def public_keys(index: Callable[[], RuleIndex], clock: Clock, region: str) -> tuple[str, ...]:
    """A region's current public keys."""
    known = index().book.regions.get(region)
    return () if known is None else known.keys_at(clock.now_us() / 1e6)


def epoch_join(settings: RegionSettings) -> EpochJoin | None:
    """What joins each connection of the store; ``None`` on a Cluster, where strict limits are quotas.

    Its slots move between servers that have epochs of their own.
    """
    return None if settings.redis_shape == "cluster" else EpochJoin(lambda: 1 + secrets.randbelow(2**32 - 1))
