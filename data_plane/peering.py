"""A node's part in its region's talk with others, wired: counts told and heard, rights asked for and given."""

import math
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from prometheus_client.core import Metric

from contract.config import Ack
from contract.credentials import region_private_key
from data_plane.adapters.peers import HttpPeers, tls_of
from data_plane.adapters.redis.connect import Join
from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.adapters.redis_counts import RedisCountStore
from data_plane.adapters.redis_life import RedisLife
from data_plane.api.peer_door import PeerDoor
from data_plane.api.peer_metrics import PeerFigures, of_peers, of_rights
from data_plane.domain.index import RuleIndex
from data_plane.services.count_store import ReconcileTally
from data_plane.services.hearing import Hearing
from data_plane.services.ports import Clock
from data_plane.services.reconcile import Reconciler
from data_plane.services.rights import RightsDesk
from data_plane.services.standing import Standings
from data_plane.settings import Settings


class Peering:
    """What talks to other regions. ``join`` is for the store's connections, so it is there before the store is.

    ``index`` and ``revision`` are what is in force.
    """

    def __init__(
        self, settings: Settings, clock: Clock, index: Callable[[], RuleIndex], revision: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._index = index
        self._revision = revision
        # On a Cluster slots move between servers, each with lives of its own: strict limits are quotas there.
        self._life = None if settings.redis_shape == "cluster" else RedisLife(_fresh_life)
        self.join: Join | None = None if self._life is None else self._life.join

    def connect(self, store: RedisCounterStore, live_nodes: Callable[[], int]) -> None:
        """Build the rest upon the store. ``live_nodes`` are those of this region."""
        settings, clock, index = self._settings, self._clock, self._index
        if self._life is not None:
            self._life.watch(store)
        key = region_private_key(settings.region_credential.get_secret_value())
        self._wire = HttpPeers(
            settings.region, key, self._public_keys,
            tls_of(settings.peers_ca_file, settings.peers_cert_file, settings.peers_key_file),
        )  # fmt: skip
        self.desk = RightsDesk(settings.region, store, self._wire, clock, index, self._revision)
        refused = self.desk.tally.refused
        self.standings = Standings(
            self._life, clock, self.desk.horizon_us, lambda: refused["marker"], lambda: index().book
        )
        counts = RedisCountStore(store, settings.node)
        self._tally = ReconcileTally()
        self._hearing = Hearing(settings.region, counts, clock, index, self._tally, self.standings.hear)
        self._reconciler = Reconciler(
            settings.region, counts, self._wire, clock, index, live_nodes, self._hearing, self._tally
        )
        self.door = PeerDoor(settings.region, key, index, self._hearing, self.desk, clock)

    def work(
        self, say: Callable[[Ack], Coroutine[Any, Any, None]]
    ) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What goes on in the background. ``say`` tells the control plane what could not be said with an ACK."""

        async def keep_standing() -> None:
            await self.standings.run(say)

        return (self._reconciler.run, self.desk.run, keep_standing)

    async def stop(self) -> None:
        """Give up what is under way, and close the connections to peers."""
        await self._reconciler.stop()
        await self.desk.stop()
        await self._wire.close()

    def status(self) -> dict[str, Any]:
        """What ``/v1/status`` says of peers and rights."""
        return {
            "peers": self._peers(),
            "slices": self._reconciler.slices,
            "exchange": self._exchange(),
            "rights": self._rights(),
        }

    def families(self) -> Iterator[Metric]:
        """What ``/metrics`` says of them."""
        yield from of_peers(self._figures)()
        yield from of_rights(self.desk.tally, self.desk.tally.held(self._clock.now_us()))()

    def own_public_keys(self) -> tuple[str, ...]:
        """Keys of this region's nodes: more than one while its credential is rotated."""
        return self._public_keys(self._settings.region)

    def _public_keys(self, region: str) -> tuple[str, ...]:
        known = self._index().book.regions.get(region)
        return () if known is None else known.keys_at(self._clock.now_us() / 1e6)

    def _figures(self) -> PeerFigures:
        return PeerFigures(
            self._tally, self._wire, self.door,
            {
                name: math.inf if age_us is None else age_us / 1e6
                for name, age_us in self._hearing.staleness_us.items()
            },
            [name for name, _ in self.standings.silent], self._reconciler.slices,
        )  # fmt: skip

    def _peers(self) -> dict[str, Any]:
        now_s = self._clock.now_us() / 1e6
        silent, heard = dict(self.standings.silent), self._hearing.heard
        return {
            region: {
                "last_heard_s": now_s - heard[region].received_at_s if region in heard else None,
                "staleness_s": None if age_us is None else age_us / 1e6,
                "silent": region in silent,
            }
            for region, age_us in self._hearing.staleness_us.items()
        }

    def _exchange(self) -> dict[str, Any]:
        tally, wire, door = self._tally, self._wire, self.door
        return {
            "messages_sent": wire.messages,
            "messages_received": door.received,
            "messages_repeated": tally.repeated,
            "bytes_sent": wire.sent_bytes,
            "bytes_received": door.received_bytes + wire.received_bytes,
            "cells_sent": tally.sent_cells,
            "cells_handed_back": tally.handed_back_cells,
            "failures": dict(tally.failures),
            "refused": {**door.refused_by_reason, "implausible_cell": tally.implausible},
            "silences": dict(tally.silences),
            "sweeps": tally.sweeps,
            "overshoots": tally.over,
            "overshoot_most_units": tally.most_over,
        }

    def _rights(self) -> dict[str, Any]:
        tally = self.desk.tally
        return {
            "incarnation": None if self._life is None else self._life.incarnation,
            "new_lives": None if self._life is None else self._life.new_lives,
            "asked": dict(tally.asked),
            "received": dict(tally.units_received),
            "given": dict(tally.units_given),
            "held": dict(tally.held(self._clock.now_us())),
            "refused": dict(tally.refused),
        }


def _fresh_life() -> int:
    """A name for a new life of the store."""
    return 1 + secrets.randbelow(2**32 - 1)
