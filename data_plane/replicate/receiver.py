"""What other regions send: who is reachable, and their counts, merged here."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from data_plane.config.index import RuleIndex
from data_plane.config.limits_of_keys import IMPLAUSIBLE, SharedLimit, SharedLimits
from data_plane.replicate.count_store import CountStore, PeerCounter
from data_plane.replicate.tally import ReplicationTally
from data_plane.store.ports import Clock
from tidegate.contract.counts import SLICES, Cell, Counts, CountsAnswer
from tidegate.contract.limits import BUCKET_ALGORITHMS, nominal_window_us

LARGEST_TAKEN = 2**47


class PeerNews(NamedTuple):
    """When a peer's last message was sent, by its clock, and received, by ours; epoch seconds."""

    sent_at_s: float
    received_at_s: float


class Receiver:
    """Receives. ``on_unreachable`` is called with who is, and since when, whenever that is looked at."""

    def __init__(
        self, region: str, store: CountStore, clock: Clock, index: Callable[[], RuleIndex], tally: ReplicationTally,
        on_unreachable: Callable[[tuple[tuple[str, int], ...]], None],
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._clock = clock
        self._index = index
        self._limits = SharedLimits(index)
        self._tally = tally
        self._on_unreachable = on_unreachable
        self._unreachable: set[str] = set()
        self.on_own_past: Callable[[str, Sequence[Cell]], None] = lambda _epoch, _cells: None
        """Called with what is new here of an earlier epoch of this region's own store, which a peer handed back."""
        self.heard: dict[str, PeerNews] = {}
        self.staleness_us: dict[str, int | None] = {}
        """How old what is known of each peer is, as of the last look; all of it. ``None``: nothing ever was."""

    def peer_urls(self) -> Mapping[str, str]:
        """Where each other region is reached."""
        return {
            name: region.peer_url
            for name, region in self._index().book.regions.items()
            if name != self._region and region.peer_url is not None
        }

    async def receive(self, counts: Counts) -> CountsAnswer:
        """Merge what a verified peer says. Raises ``StoreUnavailableError``: the peer will send it again."""
        own = await self._store.epoch_name()
        epoch = f"{counts.region}/{counts.incarnation}"
        if counts.of:
            if not self._may_speak_of(counts, own):
                self._tally.implausible += 1
                return CountsAnswer(incarnation=own)
            epoch = counts.of
        counters, again = self._placed(counts.cells)
        if counters:
            merging = await self._store.merge(epoch, len(self._index().book.regions), counters)
            again += merging.again
            if counts.of and merging.news and epoch.partition("/")[0] == self._region:
                self.on_own_past(epoch, [cell for cell in counts.cells if cell.key in merging.news])
            self._tally.over += merging.over
            self._tally.most_over = max(self._tally.most_over, merging.most_over)
        # What could not be placed counts nowhere here: everything else is complete without it.
        if counts.complete and counts.to in {"", own}:
            sent_us = int(counts.sent_at * 1e6)
            ages = {number: max(0, sent_us - as_of_us) for number, as_of_us in counts.complete if 0 <= number < SLICES}
            repeated = await self._listen(counts.region, sent_us, ages, sorted(self.peer_urls()))
            self._tally.repeated += 0 < len(ages) == repeated
        news = self.heard.get(counts.region)
        if news is None or counts.sent_at > news.sent_at_s:
            self.heard[counts.region] = PeerNews(counts.sent_at, self._clock.now_us() / 1e6)
        return CountsAnswer(again=tuple(again), incarnation=own)

    async def look(self) -> None:
        """Look who is unreachable by now."""
        peers = sorted(self.peer_urls())
        if peers:
            await self._listen("", 0, {}, peers)
        else:
            self.staleness_us = {}
            self._on_unreachable(())

    def _may_speak_of(self, counts: Counts, own: str) -> bool:
        """A region speaks for epochs of its own store, and hands back those that this region's store has had."""
        region, _, name = counts.of.partition("/")
        if region == counts.region:
            return True
        return region == self._region and name != own and self._store.knows_epoch(name)

    def _placed(self, cells: Sequence[Cell]) -> tuple[list[PeerCounter], list[bytes]]:
        """The counters whose limit is known here, with what is plausible of them; and the others."""
        of_counter: dict[bytes, list[Cell]] = {}
        for cell in cells:
            known = of_counter.get(cell.key)
            if known is None:
                of_counter[cell.key] = [cell]
            else:
                known.append(cell)
        counters: list[PeerCounter] = []
        again: list[bytes] = []
        now_us = self._clock.now_us()
        now_s = now_us / 1e6
        limit_of = self._limits.of_key
        for key, several in of_counter.items():
            limit = limit_of(key, now_s)
            if limit is None:
                again.append(key)  # a limit that is not here yet
                continue
            plausible = [
                cell
                for cell in several
                if cell.taken < LARGEST_TAKEN and cell.taken - cell.returned <= _most(limit, cell, now_us)
            ]
            self._tally.implausible += len(several) - len(plausible)
            if plausible:
                counters.append(PeerCounter(key, limit.params, plausible))
        return counters, again

    async def _listen(self, peer: str, sent_us: int, ages_us: Mapping[int, int], peers: Sequence[str]) -> int:
        """Note what was heard, and who is unreachable by now; of how many slices it was a repeat."""
        repeated, states = await self._store.hear(peer, sent_us, ages_us, peers)
        now_us = self._clock.now_us()
        self.staleness_us = {
            name: now_us - state.as_of_us if state.as_of_us else None for name, state in states.items()
        }
        since = ((name, state.unreachable_since_us) for name, state in states.items())
        unreachable = tuple((name, since_us) for name, since_us in since if since_us)
        self._tally.silences.update(name for name, _ in unreachable if name not in self._unreachable)
        self._unreachable = {name for name, _ in unreachable}
        self._on_unreachable(unreachable)
        return repeated


def _most(limit: SharedLimit, cell: Cell, now_us: int) -> int:
    """More than this no region can have taken, whatever the limit was. A bucket's cell counts since its birth."""
    rule = limit.rule
    if rule.algorithm not in BUCKET_ALGORITHMS:
        return limit.most
    return limit.most + IMPLAUSIBLE * (rule.limit * max(0, now_us - cell.window) // nominal_window_us(rule))
