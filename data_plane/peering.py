"""An agent's exchange with other regions, wired: counts sent and received, rights asked for and given."""

import contextlib
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from prometheus_client.core import Metric

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Snapshot
from data_plane.http.peer_handler import PeerHandler
from data_plane.metrics.families import PeerFigures, of_peers, of_rights
from data_plane.process import Job, tls_of
from data_plane.region_view import public_keys
from data_plane.replicate.count_store import CountStore
from data_plane.replicate.peer_session import HttpPeers, ReplicationTally
from data_plane.replicate.receiver import Receiver
from data_plane.replicate.sender import Sender
from data_plane.rights.epoch_store import EpochJoin, RedisEpochs
from data_plane.rights.epochs import StoreEpochs
from data_plane.rights.exchange import RightsExchange
from data_plane.rights.low_water import LowInbox
from data_plane.rights.region_state import RegionState
from data_plane.settings import AgentSettings
from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from tidegate.contract.config import Ack
from tidegate.contract.counts import Cell
from tidegate.contract.credentials import epoch_secret, region_private_key
from tidegate.contract.questions import MAX_PEERS, PeerExchange, RegionExchange
from tidegate.contract.status import Newest


class Peering:
    """The exchange with other regions. ``joined`` joins connections of ``store``; ``None`` where rights do not move.

    ``index`` and ``in_force`` return what is in force; ``newest`` asks the control plane what should be.
    ``live_agents`` is the number of agents of this region.
    """

    def __init__(
        self, settings: AgentSettings, clock: Clock, index: Callable[[], RuleIndex], store: RedisCounterStore,
        joined: EpochJoin | None, live_agents: Callable[[], int], in_force: Callable[[], Newest],
        newest: Callable[[], Coroutine[Any, Any, Newest | None]],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._index = index
        self.joined = joined
        self._marker = None if joined is None else RedisEpochs(settings.node, store, joined)
        self.state = RegionState(lambda: index().book, rights=joined is not None)
        key = region_private_key(settings.region_credential.get_secret_value())
        self._tls = settings.peers_tls()
        self._wire = HttpPeers(settings.region, key, self._public_keys, tls_of(self._tls))
        self.rights = RightsExchange(
            settings.region, store, self._wire, clock, index, lambda: in_force().revision, LowInbox(store),
            lambda: self.epochs.is_proven,
        )  # fmt: skip
        self.epochs = StoreEpochs(self._marker, clock, self.state, self.rights.horizon_us, newest, in_force)
        secret = epoch_secret(settings.region_credential.get_secret_value())
        counts = CountStore(store, settings.node, secret)
        self._tally = ReplicationTally()
        self._receiver = Receiver(
            settings.region, counts, clock, index, self._tally, self.state.set_unreachable, self._forward
        )
        self._sender = Sender(
            settings.region, counts, self._wire, clock, index, live_agents, self._receiver, self._tally
        )
        self.handler = PeerHandler(settings.region, key, index, self._receiver, self.rights, clock)

    def applied(self, index: RuleIndex, snapshot: Snapshot) -> None:
        """Take over a configuration that is about to be in force."""
        self.epochs.apply(self.state.apply(index, snapshot.revision), snapshot.revision)

    async def confirmed(self, ack: Ack) -> Ack:
        """The ACK with the instants from which older shares are out of use."""
        return await self.epochs.confirmed(ack)

    def work(self, send: Callable[[Ack], Coroutine[Any, Any, None]]) -> Sequence[Job]:
        """The background work. ``send`` sends an ACK that was confirmed later."""

        async def keep_epochs() -> None:
            await self.epochs.run(send)

        moves = () if self._marker is None else (self.rights.run, self.rights.receive_low, keep_epochs)
        return (self._sender.run, *moves, partial(self._tls.keep_loaded, tls_of(self._tls)))

    async def hand_over(self) -> None:
        """Cancel messages under way, and release the slices to other agents."""
        await self._sender.stop()
        await self.rights.stop()
        if self._marker is not None:
            with contextlib.suppress(StoreUnavailableError):
                await self._marker.withdraw()

    async def stop(self) -> None:
        """Close the connections to peers."""
        await self._wire.close()

    def status(self) -> dict[str, Any]:
        """Peers and rights in ``/v1/status``."""
        return {
            "peers": self._peers(),
            "slices": self._sender.slices,
            "exchange": self._exchange(),
            "rights": self._rights(),
        }

    def exchange(self) -> RegionExchange:
        """The state of the exchange, for questions of the control plane."""
        tally, rights = self._tally, self.rights.tally
        unreachable = dict(self.state.unreachable)
        peers = (
            PeerExchange(
                name, None if age_us is None else max(0.0, age_us / 1e6), name in unreachable,
                rights.units_given[name], rights.units_received[name],
            )
            for name, age_us in self._receiver.staleness_us.items()
        )  # fmt: skip
        return RegionExchange(tuple(islice(peers, MAX_PEERS)), self.epochs.is_proven, tally.over, tally.most_over)

    def families(self) -> Iterator[Metric]:
        """The metrics of peers and rights."""
        yield from of_peers(self._figures())
        yield from of_rights(self.rights.tally, self.rights.tally.held(self._clock.now_us()))

    def _forward(self, epoch: str, cells: Iterable[Cell]) -> None:
        self._sender.anti_entropy.forward(epoch, cells)

    def _public_keys(self, region: str) -> tuple[str, ...]:
        return public_keys(self._index, self._clock, region)

    def _figures(self) -> PeerFigures:
        return PeerFigures(
            self._tally, self._wire, self.handler,
            {
                name: math.inf if age_us is None else age_us / 1e6
                for name, age_us in self._receiver.staleness_us.items()
            },
            [name for name, _ in self.state.unreachable], self._sender.slices,
        )  # fmt: skip

    def _peers(self) -> dict[str, Any]:
        now_s = self._clock.now_us() / 1e6
        unreachable, last_messages = dict(self.state.unreachable), self._receiver.last_messages
        return {
            region: {
                "last_heard_s": now_s - last_messages[region].received_at_s if region in last_messages else None,
                "staleness_s": None if age_us is None else age_us / 1e6,
                "silent": region in unreachable,
            }
            for region, age_us in self._receiver.staleness_us.items()
        }

    def _exchange(self) -> dict[str, Any]:
        tally, wire, handler = self._tally, self._wire, self.handler
        return {
            "messages_sent": wire.messages,
            "messages_received": handler.received,
            "messages_repeated": tally.repeated,
            "bytes_sent": wire.sent_bytes,
            "bytes_received": handler.received_bytes + wire.received_bytes,
            "cells_sent": tally.sent_cells,
            "cells_handed_back": tally.handed_back_cells,
            "failures": dict(tally.failures),
            "refused": {**handler.refused_by_reason, "implausible_cell": tally.implausible},
            "silences": dict(tally.silences),
            "sweeps": tally.sweeps,
            "overshoots": tally.over,
            "overshoot_most_units": tally.most_over,
        }

    def _rights(self) -> dict[str, Any]:
        tally = self.rights.tally
        return {
            "proven": self.epochs.is_proven,
            "incarnation": None if self.joined is None else self.joined.incarnation,
            "new_lives": None if self.joined is None else self.joined.new_epochs,
            "asked": dict(tally.asked),
            "received": dict(tally.units_received),
            "given": dict(tally.units_given),
            "held": dict(tally.held(self._clock.now_us())),
            "refused": dict(tally.refused),
        }
