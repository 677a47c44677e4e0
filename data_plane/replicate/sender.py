"""Sends peers the counts of this region, and unmarks what all peers have acknowledged.

Counters are divided into slices; the holder of a slice's lease sends it. What a peer lacks stays marked in the store,
where the next holder finds it. The sender does not wait for a peer that is away: once the peer answers, it is sent
everything, counts of ended epochs included.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import structlog

from data_plane.config.index import RuleIndex
from data_plane.replicate.anti_entropy import AntiEntropy
from data_plane.replicate.count_store import TIMING, Collected, CountStore, PackedCells
from data_plane.replicate.peer_session import CellBatch, PeerSession, PeerTransport, ReplicationTally
from data_plane.replicate.receiver import Receiver
from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.store.subjects import limit_of_key
from tidegate.contract.counts import SLICES

log = structlog.get_logger()

TICK_S = TIMING.tick_us / 1e6
EVERY_SLICE = range(SLICES)
COLLECTIONS_A_TICK = 100
MAX_UNPLACED = 10_000


class Sender:
    """Sends to all peers. ``live_agents`` is the number of agents that share the region's slices."""

    def __init__(
        self, region: str, store: CountStore, transport: PeerTransport, clock: Clock, index: Callable[[], RuleIndex],
        live_agents: Callable[[], int], receiver: Receiver, tally: ReplicationTally,
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._transport = transport
        self._clock = clock
        self._index = index
        self._live_agents = live_agents
        self._receiver = receiver
        self.sessions: dict[str, PeerSession] = {}
        self._held: Sequence[int] = ()
        self._batches: list[CellBatch] = []
        """Batches that some peer has not acknowledged."""
        self._unplaced: dict[bytes, int] = {}
        """Since when (microseconds) a peer cannot place a counter: it lacks the limit, or its clock is behind."""
        self._epoch = ""
        self._last_tick_us = 0
        self._wake = asyncio.Event()
        """Set when a peer answers again: it need not wait for the next tick."""
        self.tally = tally
        self.anti_entropy = AntiEntropy(region, store, clock, self._is_shared, self.sessions, tally)

    @property
    def slices(self) -> int:
        """How many slices are sent from here."""
        return len(self._held)

    async def run(self) -> None:
        """Tick for ever. An unavailable store ends a tick, not the loop."""
        reason: str | None = None
        while True:
            started_us = self._clock.now_us()
            try:
                await self.tick()
                reason = None
            except StoreUnavailableError as error:
                if error.reason != reason:
                    log.warning("counts_tick_failed", reason=error.reason)
                reason = error.reason
            took_s = (self._clock.now_us() - started_us) / 1e6
            timer = asyncio.get_running_loop().call_later(max(0.02, TICK_S - took_s), self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._wake.clear()

    async def stop(self) -> None:
        """Cancel messages under way, and release the slices so that other agents get them at once."""
        await asyncio.gather(*(session.stop() for session in self.sessions.values()))
        if self._held:
            self._held = ()
            with contextlib.suppress(StoreUnavailableError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._store.hold_slices(0)

    async def tick(self) -> None:
        """Find unreachable peers, unmark what every peer has, then send each what is due."""
        urls, regions = self._receiver.peer_urls(), len(self._index().book.regions)
        if regions < 2:
            await self._receiver.check_peers()
            await self._update_sessions({})
            self._batches.clear()
            self._held = ()
            return
        # Also if no peer can be reached: then counters are unmarked at once.
        asked_us = self._clock.now_us()
        look = await self._store.look(sorted(urls), -(-SLICES // max(1, self._live_agents())), self._held)
        epoch = await self._store.epochs.current(self._region, regions, self._is_shared, look.epoch)
        self._receiver.note_states(look.peers.states)
        is_as_before = epoch == self._epoch and look.held == self._held and not self.anti_entropy.is_under_way
        if epoch != self._epoch:
            self.begin_epoch(epoch)
        self._check_clock()
        await self._update_sessions(urls)
        await self._take_over(look.held)
        await self.anti_entropy.mark_pages(self._held)
        await self._unmark()
        if look.idle is not None and is_as_before:
            self._queue_cells(look.idle, asked_us)
            self._send_queues(urls)
            return
        for _ in range(COLLECTIONS_A_TICK if self._held else 0):
            asked_us = self._clock.now_us()
            collected = await self._store.collect(self._held)
            self._queue_cells(collected, asked_us)
            if collected.is_all:
                break
            if any(session.has_full_message for session in self.sessions.values()):
                self._send_queues(urls)
        self._send_queues(urls)

    def _queue_cells(self, collected: Collected, asked_us: int) -> None:
        """Queue collected cells for every peer, with the instant up to which it then has each slice.

        ``asked_us`` is from before the store was asked, as later counts may be missing from its reply.
        """
        complete = {slice: asked_us - waits_us for slice, waits_us in collected.waits_us.items()}
        *others, last = collected.cells or (PackedCells(),)
        for cells in (*others, last):
            batch = CellBatch(cells, complete if cells is last else {}, set(self.sessions))
            if cells.number:
                self._batches.append(batch)
            for session in self.sessions.values():
                if cells.number or session.is_heartbeat_due:
                    session.add(batch)

    def _send_queues(self, urls: Mapping[str, str]) -> None:
        for name, session in self.sessions.items():
            session.send_queue(urls[name])

    async def _unmark(self) -> None:
        """Remove the marks of batches that no peer has yet to acknowledge.

        Some peers may have to be sent everything instead: that is noted before, for the next sender.
        """
        done = [batch for batch in self._batches if not batch.waiting]
        self._batches = [batch for batch in self._batches if batch.waiting]
        for name, session in self.sessions.items():
            is_sent = session.is_sent_everything
            if session.is_noted_as_sent != is_sent:
                await self._store.epochs.note_sent_everything(name, self._held, session.epoch if is_sent else None)
                session.is_noted_as_sent = is_sent
        for batch in done:
            await self._store.unmark(batch.cells.marks, self._retried(batch.unplaced))

    def _retried(self, keys: set[bytes]) -> Sequence[bytes]:
        """Unplaced counters to send again. After a while they wait for their next change, or the next sweep."""
        if not keys:
            return ()
        now_us = self._clock.now_us()
        if len(self._unplaced) > MAX_UNPLACED:
            self._unplaced.clear()
        since_us = {key: min(now_us, self._unplaced.setdefault(key, now_us)) for key in keys}
        given_up = [key for key, key_since_us in since_us.items() if now_us - key_since_us > TIMING.stale_after_us]
        for key in given_up:
            del self._unplaced[key]
        return [key for key in keys if key not in given_up]

    async def _update_sessions(self, urls: Mapping[str, str]) -> None:
        """Open a session for every new peer, and close those of peers that left."""
        for gone in self.sessions.keys() - urls.keys():
            await self._store.epochs.note_sent_everything(gone, EVERY_SLICE, None)  # from now on it misses counts
            session = self.sessions.pop(gone)
            await session.stop()
            session.drop_queue()
        for name in sorted(urls.keys() - self.sessions.keys()):
            known = await self._store.epochs.sent_everything(name, EVERY_SLICE)
            session = PeerSession(self._region, name, self._transport, self._clock, self.tally, self._on_connected)
            session.own_epoch, session.epoch, session.needs_everything = self._epoch, known, known is None
            self.sessions[name] = session
            self.anti_entropy.begin()

    async def _take_over(self, held: Sequence[int]) -> None:
        """Send the slices that are held now; in slices that are new to this agent, make waiting marks due.

        The agent that held them may have been the only one for which a peer was away: then all is sent to that peer.
        """
        if added := [slice for slice in held if slice not in self._held]:
            await self._store.make_due(added)
            for name, session in self.sessions.items():
                if session.needs_everything or await self._store.epochs.sent_everything(name, added) != session.epoch:
                    session.is_noted_as_sent = None
                    session.resend_everything()
                    self.anti_entropy.begin()
        self._held = held  # last, so that the tick after one that failed takes them over again

    def begin_epoch(self, epoch: str) -> None:
        """After the first epoch send every peer everything, counts of the ended epoch included.

        Sessions learn the name at once: one that has a message of the ended epoch under way goes on with what is queued
        meanwhile.
        """
        before, self._epoch = self._epoch, epoch
        for session in self.sessions.values():
            session.own_epoch = epoch
            session.resend_everything()
        if before:
            self._batches.clear()
            self.anti_entropy.begin()

    def _on_connected(self) -> None:
        self.anti_entropy.begin()
        self._wake.set()

    def _check_clock(self) -> None:
        """If the clock moved backwards, bring every instant forward that waits for the time before."""
        before_us, self._last_tick_us = self._last_tick_us, self._clock.now_us()
        if self._last_tick_us < before_us:
            self.anti_entropy.clock_set_back(self._last_tick_us)
            self._unplaced.clear()
            for session in self.sessions.values():
                session.clock_set_back(self._last_tick_us)

    def _is_shared(self, key: bytes) -> bool:
        return limit_of_key(key) in self._index().book.shared_by_id
