"""Receives counts of other regions: merges them into this store, and notes which peers are unreachable."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from data_plane.config.index import RuleIndex
from data_plane.config.limit_resolution import RegionFacts, of_whole_site, shared_params
from data_plane.config.limits_of_keys import MAX_KNOWN, of_client, parts_of
from data_plane.config.rulebook import Rulebook
from data_plane.replicate.count_store import CountStore, PeerCounter, PeerState
from data_plane.replicate.peer_session import ReplicationTally
from data_plane.store.ports import Clock
from tidegate.contract.counts import SLICES, Cell, Counts, CountsAnswer
from tidegate.contract.limits import BUCKET_ALGORITHMS, LimitRule, capacity, nominal_window_us

LARGEST_TAKEN = 2**47
IMPLAUSIBLE = 64
"""A cell with more than this many times its limit is refused as implausible."""
MAX_LASTING = 50_000


class LastMessage(NamedTuple):
    """When a peer's last message was sent, by its clock, and received, by ours; epoch seconds."""

    sent_at_s: float
    received_at_s: float


class Receiver:
    """Receives messages of peers. ``on_unreachable`` gets every unreachable peer, with since when, at each check.

    ``forward`` gets counts that this store lacked, with their epoch: what a peer counted itself, and what it returned
    of an ended epoch of this region's store.
    """

    def __init__(
        self, region: str, store: CountStore, clock: Clock, index: Callable[[], RuleIndex], tally: ReplicationTally,
        on_unreachable: Callable[[tuple[tuple[str, int], ...]], None],
        forward: Callable[[str, Iterable[Cell]], None] = lambda _epoch, _cells: None,
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._clock = clock
        self._index = index
        self._limits = SharedLimits(index)
        self._tally = tally
        self._on_unreachable = on_unreachable
        self._unreachable: set[str] = set()
        self._forward = forward
        self.last_messages: dict[str, LastMessage] = {}
        self.staleness_us: dict[str, int | None] = {}
        """The age of each peer's oldest counts here, at the last check; ``None`` before all were received once."""

    def peer_urls(self) -> Mapping[str, str]:
        """The URL of each other region that has one."""
        return {
            name: region.peer_url
            for name, region in self._index().book.regions.items()
            if name != self._region and region.peer_url is not None
        }

    async def receive(self, counts: Counts) -> CountsAnswer:
        """Merge a verified peer's counts. Raises ``StoreUnavailableError``; the peer then sends them again."""
        own = await self._store.epochs.name()
        epoch = f"{counts.region}/{counts.incarnation}"
        if counts.of:
            if not self._may_send_epoch(counts, own):
                self._tally.implausible += 1
                return CountsAnswer(incarnation=own)
            epoch = counts.of
        counters, again = self._group_by_counter(counts.cells)
        if counters:
            merged = await self._store.merge(epoch, len(self._index().book.regions), counters)
            again += merged.again
            if merged.changed and (not counts.of or epoch.partition("/")[0] == self._region):
                self._forward(epoch, (cell for cell in counts.cells if cell.key in merged.changed))
            self._tally.over += merged.over
            self._tally.most_over = max(self._tally.most_over, merged.most_over)
        # Unplaced counters have no limit here, so the slices are complete without them.
        if counts.complete and counts.to in {"", own}:
            sent_us = int(counts.sent_at * 1e6)
            ages = {number: max(0, sent_us - as_of_us) for number, as_of_us in counts.complete if 0 <= number < SLICES}
            repeated = await self._note_received(counts.region, sent_us, ages, sorted(self.peer_urls()))
            if ages and repeated == len(ages):
                self._tally.repeated += 1
        last = self.last_messages.get(counts.region)
        if last is None or counts.sent_at > last.sent_at_s:
            self.last_messages[counts.region] = LastMessage(counts.sent_at, self._clock.now_us() / 1e6)
        return CountsAnswer(again=tuple(again), incarnation=own)

    async def check_peers(self) -> None:
        """Find the peers that are unreachable now."""
        peers = sorted(self.peer_urls())
        if peers:
            await self._note_received("", 0, {}, peers)
        else:
            self.staleness_us = {}
            self._on_unreachable(())

    def _may_send_epoch(self, counts: Counts, own: str) -> bool:
        """Whether a peer may send counts of that epoch: its own store's, or an ended one of this region's store."""
        region, _, name = counts.of.partition("/")
        if region == counts.region:
            return True
        return region == self._region and name != own and self._store.epochs.is_own(name)

    def _group_by_counter(self, cells: Sequence[Cell]) -> tuple[list[PeerCounter], list[bytes]]:
        """Group plausible cells by counter. Returns the counters, and the keys whose limit is unknown here."""
        by_key: dict[bytes, list[Cell]] = {}
        for cell in cells:
            known = by_key.get(cell.key)
            if known is None:
                by_key[cell.key] = [cell]
            else:
                known.append(cell)
        counters: list[PeerCounter] = []
        again: list[bytes] = []
        now_us = self._clock.now_us()
        now_s = now_us / 1e6
        limit_of = self._limits.of_key
        for key, of_key in by_key.items():
            limit = limit_of(key, now_s)
            if limit is None:
                again.append(key)  # the limit may come with the next revision
                continue
            plausible = [
                cell
                for cell in of_key
                if cell.taken < LARGEST_TAKEN and cell.taken - cell.returned <= _max_taken(limit, cell, now_us)
            ]
            self._tally.implausible += len(of_key) - len(plausible)
            if plausible:
                counters.append(PeerCounter(key, limit.params, plausible))
        return counters, again

    async def _note_received(self, peer: str, sent_us: int, ages_us: Mapping[int, int], peers: Sequence[str]) -> int:
        """Note a message and find unreachable peers. Returns of how many slices the message was a repeat."""
        found = await self._store.note_received(peer, sent_us, ages_us, peers)
        self.note_states(found.states)
        return found.repeated

    def note_states(self, states: Mapping[str, PeerState]) -> None:
        """Take over the states of all peers, as the store has them."""
        now_us = self._clock.now_us()
        self.staleness_us = {
            name: now_us - state.as_of_us if state.as_of_us else None for name, state in states.items()
        }
        since = ((name, state.unreachable_since_us) for name, state in states.items())
        unreachable = tuple((name, since_us) for name, since_us in since if since_us)
        self._tally.silences.update(name for name, _ in unreachable if name not in self._unreachable)
        self._unreachable = {name for name, _ in unreachable}
        self._on_unreachable(unreachable)


class SharedLimit(NamedTuple):
    """A shared limit as it applies to the subject of a key, with its script parameters.

    ``most`` is the most units that a plausible cell can have.
    """

    rule: LimitRule
    params: bytes
    most: int


class SharedLimits:
    """Finds the shared limit of a key, under the index in force and the state of the region."""

    def __init__(self, index: Callable[[], RuleIndex]) -> None:
        self._index = index
        self._book: Rulebook | None = None
        self._region_facts: RegionFacts | None = None
        self._known: dict[tuple[object, ...], SharedLimit] = {}
        self._seen: RuleIndex | None = None
        self._lasting: dict[bytes, SharedLimit] = {}
        """Limits of counters that cannot change while the index stays, as their client has no overrides."""

    def of_key(self, key: bytes, now_s: float) -> SharedLimit | None:
        """The limit, or ``None`` if this configuration has no such limit."""
        index = self._index()
        book = index.book
        if book is not self._book or book.region_facts is not self._region_facts:
            self._book, self._region_facts, self._known, self._seen = book, book.region_facts, {}, None
        if index is not self._seen or len(self._lasting) >= MAX_LASTING:
            self._seen, self._lasting = index, {}
        known = self._lasting.get(key)
        if known is not None:
            return known
        id, client, of_site = parts_of(key)
        rule = book.shared_by_id.get(id)
        if rule is None:
            return None
        principal = None if client is None else index.clients.get(client)
        if principal is None or not principal.client.overrides:
            limit = self._lasting[key] = self._limit(book, rule, of_site=of_site)
            return limit
        return self._limit(book, of_client(rule, principal.client, now_s), of_site=of_site)

    def _limit(self, book: Rulebook, rule: LimitRule, *, of_site: bool) -> SharedLimit:
        name = (rule.id, of_site, rule.limit, rule.burst)
        limit = self._known.get(name)
        if limit is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            if of_site:
                rule = of_whole_site(rule)
            limit = self._known[name] = SharedLimit(
                rule, shared_params(rule, book.region_facts, book.regions), IMPLAUSIBLE * max(1, capacity(rule))
            )
        return limit


def _max_taken(limit: SharedLimit, cell: Cell, now_us: int) -> int:
    """The most units that a region can have taken in a cell. A bucket's cell counts since its birth."""
    rule = limit.rule
    if rule.algorithm not in BUCKET_ALGORITHMS:
        return limit.most
    return limit.most + IMPLAUSIBLE * (rule.limit * max(0, now_us - cell.window) // nominal_window_us(rule))
