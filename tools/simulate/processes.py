"""Nodes and agents in virtual time: the service's parts, wired as ``data_plane/node.py`` and ``agent.py`` wire them.

HTTP, gates, holds, usage and metrics are left out, as they take no part in counting.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.config.stream import Snapshot
from data_plane.decide.check_resolution import Anonymous
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import Tally
from data_plane.decide.denial_cache import DenialCache
from data_plane.decide.pending_check import CHECK_SLOTS, PendingCheck, Refusal, Verdict
from data_plane.decide.store_fallback import StoreFallback
from data_plane.load.following import Gates
from data_plane.process import run_forever
from data_plane.replicate.count_store import CountStore
from data_plane.replicate.peer_session import ReplicationTally
from data_plane.replicate.receiver import Receiver
from data_plane.replicate.sender import Sender
from data_plane.rights.epoch_store import EpochJoin, RedisEpochs
from data_plane.rights.epochs import StoreEpochs
from data_plane.rights.exchange import RightsExchange
from data_plane.rights.low_water import LowInbox, LowOutbox
from data_plane.rights.region_state import RegionState
from data_plane.rights.watch import RegionWatch, StrictReader
from data_plane.store.local_counters import LocalCounters
from data_plane.store.membership import AGENTS, AgentMembership, RedisNodeRegister
from data_plane.store.subject_bounds import SubjectBounds
from tidegate.contract.config import Ack, Change
from tidegate.contract.counts import Cell, Counts, CountsAnswer
from tidegate.contract.decision import CheckRequest
from tidegate.contract.rights import Asks, Gifts
from tidegate.contract.status import Newest
from tools.simulate.server import StoreConnection

if TYPE_CHECKING:
    from tools.simulate.region import SimulatedRegion

CLIENT = "simulated"
API_KEY = f"tg_{CLIENT}"
MAX_DENIALS = 1_000


class SimulatedProcess:
    """A process that runs until it is killed, and does nothing while it is stopped."""

    def __init__(self, region: "SimulatedRegion", name: str) -> None:
        self.region = region
        self.name = name
        self.is_alive = True
        self.index = RuleIndex.empty(region.name)
        self.revision = 0
        joined = EpochJoin(region.world.fresh_number)
        self.store = StoreConnection(region.server, self, joined, region.world.now_us)
        self.epoch_store = RedisEpochs(name, self.store, joined)
        self._running = asyncio.Event()
        self._running.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_running(self) -> bool:
        """Whether the process is neither dead nor stopped."""
        return self.is_alive and self._running.is_set()

    async def awake(self) -> None:
        """Return once the process is neither dead nor stopped; never if it is dead."""
        if self.is_alive:
            await self._running.wait()
        if not self.is_alive:
            await asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """SIGSTOP."""
        self._running.clear()

    def go_on(self) -> None:
        """SIGCONT."""
        self._running.set()

    def kill(self) -> None:
        """SIGKILL."""
        self.is_alive = False
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that ends with the process."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def work(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What goes on in the background."""
        raise NotImplementedError

    def begin(self) -> None:
        """Start working."""
        self.spawn(self.store.keep_connected())
        for job in self.work():
            self.spawn(run_forever(job))

    def apply(self, config: ConfigSet, revision: int) -> None:
        """Put a configuration in force."""
        before, after = _documents(self.index.config), _documents(config)
        changes = [Change(*name, after.get(name)) for name in before | after if before.get(name) != after.get(name)]
        self.index, self.revision = self.index.with_changes(changes, config), revision

    @property
    def generation(self) -> int:
        """The number of the client's resets in this process's configuration."""
        client = self.index.clients.get(CLIENT)
        return 0 if client is None else client.client.generation

    async def confirmed(self, ack: Ack) -> Ack:
        """The ACK as it is sent."""
        return ack

    def _counts(self) -> CountStore:
        return CountStore(self.store, self.name, self.region.name.encode(), self.region.world.token_hex)

    def _index_in_force(self) -> RuleIndex:
        return self.index


def _documents(config: ConfigSet) -> dict[tuple[str, str], msgspec.Raw]:
    return {(kind, id): msgspec.Raw(body) for kind, id, body in config.documents()}


class SimulatedCheck(PendingCheck):
    """One request at a node."""

    __slots__ = (*CHECK_SLOTS, "generation", "node", "ran_us", "store_us", "window_us")

    def __init__(self, node: "SimulatedNode", cost: int) -> None:
        self.node = node
        self.decider: Decider = node.decider
        self.request = CheckRequest(api_key=API_KEY, method="GET", path="/", cost=cost)
        self.asked_us = node.region.now_us()
        self.generation = node.generation
        self.ran_us = self.store_us = self.window_us = 0

    def done(self, figures: Sequence[int], at: int, now_us: int, *, degraded: bool = False) -> None:
        """The store has decided; or the store fallback, if ``degraded``."""
        if not degraded:
            self.ran_us, self.store_us, self.window_us = self.node.store.ran_us, figures[0], figures[at + 1]
        super().done(figures, at, now_us, degraded=degraded)

    def decided(self, result: Verdict | Refusal, now_us: int) -> None:  # noqa: ARG002 - the clock of the world says
        """Record the answer."""
        if isinstance(result, Verdict) and result.allowed:
            self.node.region.admitted(self)
        else:
            self.node.region.denied(self)


class SimulatedNode(SimulatedProcess):
    """A node."""

    def __init__(self, region: "SimulatedRegion", name: str) -> None:
        super().__init__(region, name)
        store, epochs = self.store, self.epoch_store
        self.state = RegionState(lambda: self.index.book, rights=True)
        self._outbox = LowOutbox(store, region)
        self._reader = StrictReader(self._outbox.add)
        receiver = Receiver(
            region.name, self._counts(), region, self._index_in_force, ReplicationTally(), self.state.set_unreachable
        )
        self._watch = RegionWatch(self.state, receiver, epochs, region)
        counters = LocalCounters(region.world.host, 100)
        fallback = StoreFallback(counters, counters, lambda: 1, region.world.loop.call_soon, region.now_us)
        self.decider: Decider = Decider(
            self.index, store, region, fallback, Tally(), Anonymous(), DenialCache(MAX_DENIALS), SubjectBounds(),
            Gates(), self._reader,
        )  # fmt: skip

    def apply(self, config: ConfigSet, revision: int) -> None:
        """Put a configuration in force."""
        super().apply(config, revision)
        self.state.apply(self.index, revision)
        self.decider.applied(self.index, Snapshot(revision, "", self.index.config))

    def work(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What goes on in the background."""
        return (self._watch.run, self._outbox.run)

    def ask(self, cost: int) -> None:
        """Decide a request."""
        self.decider.decide(SimulatedCheck(self, cost))


class SimulatedAgent(SimulatedProcess):
    """An agent."""

    def __init__(self, region: "SimulatedRegion", name: str) -> None:
        super().__init__(region, name)
        store = self.store
        self.state = RegionState(lambda: self.index.book, rights=True)
        peers = region.world.peers_of(region.name)
        self.rights = RightsExchange(
            region.name, store, peers, region, self._index_in_force, lambda: self.revision, LowInbox(store),
            lambda: self.epochs.is_proven,
        )  # fmt: skip
        self.epochs: StoreEpochs = StoreEpochs(
            self.epoch_store, region, self.state, self.rights.horizon_us, self._newest, self._in_force
        )
        counts = self._counts()
        tally = ReplicationTally()
        self.receiver = Receiver(
            region.name, counts, region, self._index_in_force, tally, self.state.set_unreachable,
            self._forward,
        )  # fmt: skip
        self._membership = AgentMembership(name, RedisNodeRegister(store, AGENTS), region)
        self.sender: Sender = Sender(
            region.name, counts, peers, region, self._index_in_force, self._membership.live_nodes, self.receiver, tally
        )
        self._digest = ""

    def apply(self, config: ConfigSet, revision: int) -> None:
        """Put a configuration in force."""
        super().apply(config, revision)
        self._digest = config.digest
        self.epochs.apply(self.state.apply(self.index, revision), revision)

    def _forward(self, epoch: str, cells: Iterable[Cell]) -> None:
        self.sender.anti_entropy.forward(epoch, cells)

    async def confirmed(self, ack: Ack) -> Ack:
        """The ACK with the instants from which older shares are out of use."""
        return await self.epochs.confirmed(ack)

    def work(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What goes on in the background."""
        found: list[Callable[[], Coroutine[Any, Any, None]]] = [self._membership.run, self._keep_epochs]
        if self.region.world.scenario.mode == "shared":
            found.append(self.sender.run)
        else:
            found += [self.rights.run, self.rights.receive_low]
        return found

    async def take_counts(self, counts: Counts) -> CountsAnswer:
        """Merge a region's counts."""
        await self.awake()
        return await self.receiver.receive(counts)

    async def take_asks(self, asks: Asks) -> Gifts:
        """Answer requests for rights."""
        await self.awake()
        return await self.rights.give(asks)

    async def _keep_epochs(self) -> None:
        await self.epochs.run(self._say)

    async def _say(self, ack: Ack) -> None:
        await self.region.world.control.hear(self, ack)

    async def _newest(self) -> Newest | None:
        return await self.region.world.control.newest(self)

    def _in_force(self) -> Newest:
        return Newest(revision=self.revision, digest=self._digest)
