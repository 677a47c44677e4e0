"""Counts between regions: what changed here is told to every peer, what peers tell is merged here.

One node of a region does the telling at a time (a lease in the store). Messages carry absolute counts, so any of them
may be lost, doubled or late. What is unsent stays marked in the store until every connected peer has it; a peer that
comes back is told everything once (a sweep), so nothing has to be remembered for it while it is away.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from contract.counts import MAX_CELLS, Cell, Counts, CountsAnswer
from data_plane.domain.index import RuleIndex
from data_plane.domain.peers import PeerNews
from data_plane.domain.rulebook import Rulebook
from data_plane.domain.subjects import limit_of_key
from data_plane.services.ports import Clock, StoreUnavailableError

log = structlog.get_logger()

TICK_S = 0.2
HEARTBEAT_S = 1.0
STALE_AFTER_S = 2.0


class MarkedKey(NamedTuple):
    """A counter with its own cells (current and previous window) as they are now."""

    key: bytes
    cells: tuple[Cell, ...]


class PeerCounter(NamedTuple):
    """A peer's cells of one counter, with the script parameters of its limit."""

    key: bytes
    params: bytes
    cells: tuple[Cell, ...]


class CountStore(Protocol):
    """The cells in the region's store. Every method raises ``StoreUnavailableError``."""

    async def hold_lease(self) -> bool:
        """Take or keep the region's lease on telling; whether this node has it."""
        ...

    async def incarnation(self) -> str:
        """The name of this life of the store: another one after its data was lost."""
        ...

    async def marked(self) -> Sequence[MarkedKey]:
        """Some of the counters that changed and are not yet settled, at most ``MAX_CELLS``."""
        ...

    async def settle(self, keys: Sequence[MarkedKey]) -> None:
        """Unmark what has not changed since it was read."""
        ...

    async def mark_page(self, cursor: int, is_shared: Callable[[bytes], bool]) -> int:
        """Mark a page of all counters from ``cursor`` (0 begins) as changed; the next cursor, 0 at the end."""
        ...

    async def merge(self, peer: str, regions: int, counters: Sequence[PeerCounter]) -> Sequence[bytes]:
        """Take what a peer (a region and its incarnation) counted; the keys that it must send again."""
        ...


class UnreachablePeerError(Exception):
    """A peer did not answer, or refused."""


class PeerTransport(Protocol):
    """The way to another region's nodes."""

    async def send(self, to_region: str, url: str, counts: Counts) -> CountsAnswer:
        """Deliver one batch. Raises ``UnreachablePeerError``."""
        ...


class _Peer:
    """What we know of one peer as its teller."""

    def __init__(self) -> None:
        self.told: dict[bytes, tuple[Cell, ...]] = {}
        self.connected = False
        self.next_heartbeat_s = 0.0


class Reconciler:
    """Tells peers and listens to them."""

    def __init__(
        self, region: str, store: CountStore, transport: PeerTransport, clock: Clock, index: Callable[[], RuleIndex]
    ) -> None:
        self._region = region
        self._store = store
        self._transport = transport
        self._clock = clock
        self._index = index
        self._peers: dict[str, _Peer] = {}
        self._sweep_cursor: int | None = None
        self.heard: dict[str, PeerNews] = {}
        self.sent_cells = 0
        self.failures = 0

    async def run(self) -> None:
        """Tick, for ever. A store that is away ends a tick, not the loop."""
        while True:
            started_s = self._clock.now_us() / 1e6
            try:
                if self._peer_urls() and await self._store.hold_lease():
                    await self.tick()
            except StoreUnavailableError as error:
                log.warning("reconcile_tick_failed", reason=error.reason)
            took_s = self._clock.now_us() / 1e6 - started_s
            await asyncio.sleep(max(0.02, TICK_S - took_s))

    async def tick(self) -> None:
        """Tell every peer what it has not been told, then unmark what all of them know."""
        urls = self._peer_urls()
        for gone in self._peers.keys() - urls.keys():
            del self._peers[gone]
        incarnation = await self._store.incarnation()
        await self._sweep()
        marked = await self._store.marked()
        await asyncio.gather(*(self._tell(region, url, incarnation, marked) for region, url in urls.items()))
        known = [one for one in marked if self._known_to_all(one)]
        if known:
            await self._store.settle(known)
            for peer in self._peers.values():
                for one in known:
                    peer.told.pop(one.key, None)

    async def receive(self, counts: Counts) -> CountsAnswer:
        """Merge what a verified peer says. Raises ``StoreUnavailableError``: the peer will send it again."""
        book = self._index().book
        cells_of: dict[bytes, list[Cell]] = {}
        for cell in counts.cells:
            cells_of.setdefault(cell.key, []).append(cell)
        counters = [
            PeerCounter(key, params, tuple(cells))
            for key, cells in cells_of.items()
            if (params := book.params_by_id.get(limit_of_key(key))) is not None
        ]
        again: set[bytes] = cells_of.keys() - {counter.key for counter in counters}  # limits that are not here yet
        if counters:
            peer = f"{counts.region}/{counts.incarnation}"
            again.update(await self._store.merge(peer, len(book.regions), counters))
        now_s = self._clock.now_us() / 1e6
        news = self.heard.get(counts.region)
        if news is None or counts.sent_at >= news.sent_at_s:
            self.heard[counts.region] = PeerNews(counts.sent_at, now_s)
        return CountsAnswer(again=tuple(again))

    def _peer_urls(self) -> Mapping[str, str]:
        book: Rulebook = self._index().book
        return {
            name: region.peer_url
            for name, region in book.regions.items()
            if name != self._region and region.peer_url is not None
        }

    def _known_to_all(self, one: MarkedKey) -> bool:
        """Whether every connected peer has it; those away get a sweep when they are back."""
        return all(peer.told.get(one.key) == one.cells for peer in self._peers.values() if peer.connected)

    async def _tell(self, region: str, url: str, incarnation: str, marked: Sequence[MarkedKey]) -> None:
        """One peer's part of a tick. One that is away gets a heartbeat now and then, and everything when it is back."""
        peer = self._peers.setdefault(region, _Peer())
        now_s = self._clock.now_us() / 1e6
        news = [one for one in marked if peer.told.get(one.key) != one.cells] if peer.connected else []
        if not news and now_s < peer.next_heartbeat_s:
            return
        peer.next_heartbeat_s = now_s + HEARTBEAT_S
        try:
            for batch in _batches(news):
                await self._deliver(region, url, incarnation, peer, batch)
        except UnreachablePeerError as error:
            self.failures += 1
            if peer.connected:
                log.warning("peer_lost", peer=region, error=str(error))
            peer.connected, peer.told = False, {}
            return
        if not peer.connected:
            log.info("peer_connected", peer=region)
            peer.connected = True
            self._sweep_cursor = 0

    async def _sweep(self) -> None:
        """Mark the next page of all shared counters, if a peer came back: it is told with the rest."""
        if self._sweep_cursor is not None:
            rules = self._index().book.params_by_id
            next_cursor = await self._store.mark_page(self._sweep_cursor, lambda key: limit_of_key(key) in rules)
            self._sweep_cursor = next_cursor or None

    async def _deliver(self, region: str, url: str, incarnation: str, peer: _Peer, batch: Sequence[MarkedKey]) -> None:
        cells = tuple(cell for one in batch for cell in one.cells)
        now_s = self._clock.now_us() / 1e6
        counts = Counts(region=self._region, incarnation=incarnation, sent_at=now_s, cells=cells)
        answer = await self._transport.send(region, url, counts)
        self.sent_cells += len(cells)
        again = set(answer.again)
        peer.told.update({one.key: one.cells for one in batch if one.key not in again})


def _batches(news: Sequence[MarkedKey]) -> Sequence[Sequence[MarkedKey]]:
    """Parts of at most ``MAX_CELLS`` cells (two a key); one empty part when there is no news: a heartbeat."""
    size = MAX_CELLS // 2
    return [news[start : start + size] for start in range(0, len(news), size)] or [()]
