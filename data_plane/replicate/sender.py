"""Sends peers what was counted here, and settles what all of them have.

The counters of a region are divided into slices; who holds a slice's lease sends it. What is not settled stays marked
in the store, where the next holder finds it. A peer that does not answer is not waited for: when it is back it is sent
everything once, and what an earlier epoch of its store had counted.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import structlog

from data_plane.config.index import RuleIndex
from data_plane.replicate.anti_entropy import AntiEntropy
from data_plane.replicate.count_store import Collected, CountStore, News
from data_plane.replicate.peer_session import Batch, PeerSession, PeerTransport
from data_plane.replicate.receiver import Receiver
from data_plane.replicate.tally import ReplicationTally
from data_plane.replicate.timing import DEFAULT_TIMING
from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.store.subjects import limit_of_key
from tidegate.contract.counts import SLICES

log = structlog.get_logger()

TICK_S = DEFAULT_TIMING.tick_us / 1e6
COLLECTIONS_A_TICK = 50
MAX_UNPLACED = 10_000


class Sender:
    """Sends to peers. ``live_nodes`` says over how many holders of leases the slices of the region are divided."""

    def __init__(
        self, region: str, store: CountStore, transport: PeerTransport, clock: Clock, index: Callable[[], RuleIndex],
        live_nodes: Callable[[], int], receiver: Receiver, tally: ReplicationTally,
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._transport = transport
        self._clock = clock
        self._index = index
        self._live_nodes = live_nodes
        self._receiver = receiver
        self._sessions: dict[str, PeerSession] = {}
        self._held: Sequence[int] = ()
        self._batches: list[Batch] = []
        """Those that some peer has not acknowledged."""
        self._unplaced: dict[bytes, int] = {}
        """Since when (microseconds) a peer cannot place a counter: it knows no such limit, or its clock is behind."""
        self._epoch = ""
        self._ticked_us = 0
        self._wake = asyncio.Event()
        """Set when a peer is back: it need not wait for the next tick."""
        self.tally = tally
        self._anti_entropy = AntiEntropy(region, store, clock, self._is_shared, self._sessions, tally)
        receiver.on_own_past = self._anti_entropy.pass_on

    @property
    def slices(self) -> int:
        """How many slices are sent from here."""
        return len(self._held)

    async def run(self) -> None:
        """Tick, for ever. A store that is away ends a tick, not the loop."""
        trouble: str | None = None
        while True:
            started_us = self._clock.now_us()
            try:
                await self.tick()
                trouble = None
            except StoreUnavailableError as error:
                if error.reason != trouble:
                    log.warning("reconcile_tick_failed", reason=error.reason)
                trouble = error.reason
            took_s = (self._clock.now_us() - started_us) / 1e6
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.02, TICK_S - took_s)):
                    await self._wake.wait()
            self._wake.clear()

    async def stop(self) -> None:
        """Give up what is being sent, and let others have the slices at once."""
        await asyncio.gather(*(session.stop() for session in self._sessions.values()))
        if self._held:
            self._held = ()
            with contextlib.suppress(StoreUnavailableError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._store.hold_slices(0)

    async def tick(self) -> None:
        """Look who is reachable, settle what every peer has, then give each what is due."""
        urls, regions = self._receiver.peer_urls(), len(self._index().book.regions)
        if regions > 1:  # also where no peer can be reached: then marks go at once
            epoch = await self._store.epoch(self._region, regions, self._is_shared)
        await self._receiver.look()
        if regions < 2:
            self._sessions.clear()
            self._held = ()
            return
        if self._epoch not in {"", epoch}:
            self._begin_again()
        self._epoch = epoch
        self._look_at_clock()
        await self._meet(urls)
        await self._hold_slices()
        await self._anti_entropy.turn(self._held)
        await self._note_missing()
        await self._settle()
        for _ in range(COLLECTIONS_A_TICK if self._held else 0):
            asked_us = self._clock.now_us()
            collected = await self._store.collect(self._held)
            self._hand_on(collected, asked_us)
            if collected.is_all:
                break
            if any(session.fills_a_message for session in self._sessions.values()):
                self._go_on(urls)
        self._go_on(urls)

    def _hand_on(self, collected: Collected, asked_us: int) -> None:
        """Put what was collected into every peer's queue, and how far it then knows everything.

        ``asked_us`` is from before the store was asked: what was counted while its reply came is not among it.
        """
        complete = {slice: asked_us - waits_us for slice, waits_us in collected.waits_us.items()}
        *others, last = collected.news or (News(),)
        for news in (*others, last):
            batch = Batch(news, complete if news is last else {}, set(self._sessions))
            if news.number:
                self._batches.append(batch)
            for session in self._sessions.values():
                if news.number or session.is_heartbeat_due:
                    session.add(batch)

    def _go_on(self, urls: Mapping[str, str]) -> None:
        for name, session in self._sessions.items():
            session.go_on(urls[name], self._epoch)

    async def _note_missing(self) -> None:
        """Before anything is settled without a peer, let whoever sends next know that it is to be sent everything."""
        for name, session in self._sessions.items():
            if session.sweeping and session.is_noted:
                session.is_noted = False
                await self._store.note_told(name, None)

    async def _settle(self) -> None:
        """Forget the marks of what every peer has acknowledged."""
        done = [batch for batch in self._batches if not batch.waiting]
        self._batches = [batch for batch in self._batches if batch.waiting]
        for batch in done:
            await self._store.settle(batch.news.marks, self._still_unplaced(batch.unplaced))

    def _still_unplaced(self, keys: set[bytes]) -> Sequence[bytes]:
        """Those that may be placed yet. Who has long had no such limit is sent them with the next change, or sweep."""
        if not keys:
            return ()
        now_us = self._clock.now_us()
        if len(self._unplaced) > MAX_UNPLACED:
            self._unplaced.clear()
        since_us = {key: min(now_us, self._unplaced.setdefault(key, now_us)) for key in keys}
        given_up = [key for key, at_us in since_us.items() if now_us - at_us > DEFAULT_TIMING.stale_after_us]
        for key in given_up:
            del self._unplaced[key]
        return [key for key in keys if key not in given_up]

    async def _meet(self, urls: Mapping[str, str]) -> None:
        """Peers that came get a session; what is sent to those that went need not be sent any more."""
        for gone in self._sessions.keys() - urls.keys():
            await self._store.note_told(gone, None)  # nothing is sent to it from now on
            session = self._sessions.pop(gone)
            await session.stop()
            session.drop()
        for name in sorted(urls.keys() - self._sessions.keys()):
            known = await self._store.told_epoch(name)
            session = PeerSession(self._region, name, self._transport, self._clock, self.tally, self._on_back)
            session.epoch, session.sweeping, session.is_noted = known, known is None, known is not None
            self._sessions[name] = session
            self._anti_entropy.begin()

    async def _hold_slices(self) -> None:
        """Hold our part of the slices. Of one that is new to us, all that waits is due: its holder may have died."""
        before = self._held
        self._held = await self._store.hold_slices(-(-SLICES // max(1, self._live_nodes())))
        came = [slice for slice in self._held if slice not in before]
        if came:
            await self._store.recall(came)

    def _begin_again(self) -> None:
        """The store came back as another epoch: everybody is sent everything, what the one before had counted too."""
        self._batches.clear()
        for session in self._sessions.values():
            session.begin_again()
        self._anti_entropy.begin()

    def _on_back(self) -> None:
        self._anti_entropy.begin()
        self._wake.set()

    def _look_at_clock(self) -> None:
        """If the clock moved backwards, wait for nothing that was to come by the clock before."""
        before_us, self._ticked_us = self._ticked_us, self._clock.now_us()
        if self._ticked_us < before_us:
            self._anti_entropy.no_later(self._ticked_us)
            self._unplaced.clear()
            for session in self._sessions.values():
                session.clock_set_back(self._ticked_us)

    def _is_shared(self, key: bytes) -> bool:
        return limit_of_key(key) in self._index().book.shared_by_id
