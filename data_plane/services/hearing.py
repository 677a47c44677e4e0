"""What other regions tell: who is heard, who is silent, and their counts, merged here."""

from collections.abc import Callable, Mapping, Sequence

from contract.counts import SLICES, Cell, Counts, CountsAnswer
from contract.limits import BUCKET_ALGORITHMS, LimitRule, capacity, nominal_window_us
from data_plane.domain.index import RuleIndex
from data_plane.domain.peers import PeerNews
from data_plane.domain.regions.keys import ToldLimits
from data_plane.services.count_store import CountStore, PeerCounter, ReconcileTally
from data_plane.services.ports import Clock

IMPLAUSIBLE = 64
"""A cell of more than this many times what its limit admits is refused: no change of a limit explains it. A bucket's
cell counts all that was taken since its birth, so what filled since then counts with it."""


class Hearing:
    """Listens to peers. ``on_silent`` is called with who is silent, and since when, whenever that is looked at."""

    def __init__(
        self, region: str, store: CountStore, clock: Clock, index: Callable[[], RuleIndex], tally: ReconcileTally,
        on_silent: Callable[[tuple[tuple[str, int], ...]], None],
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._clock = clock
        self._index = index
        self._limits = ToldLimits(index)
        self._tally = tally
        self._on_silent = on_silent
        self._silent: set[str] = set()
        self.on_own_past: Callable[[str, Sequence[Cell]], None] = lambda _life, _cells: None
        """Called with what is new here of an earlier life of this region's own store, which a peer handed back."""
        self.heard: dict[str, PeerNews] = {}
        self.staleness_us: dict[str, int | None] = {}
        """How old what is known of each peer is, as of the last tick; all of it. ``None``: nothing ever was."""

    def peer_urls(self) -> Mapping[str, str]:
        """Where each other region is reached."""
        return {
            name: region.peer_url
            for name, region in self._index().book.regions.items()
            if name != self._region and region.peer_url is not None
        }

    async def receive(self, counts: Counts) -> CountsAnswer:
        """Merge what a verified peer says. Raises ``StoreUnavailableError``: the peer will send it again."""
        book = self._index().book
        own = await self._store.incarnation()
        life = f"{counts.region}/{counts.incarnation}"
        if counts.of:
            of_whom, _, _ = counts.of.partition("/")
            if of_whom not in {self._region, counts.region} or counts.of == f"{self._region}/{own}":
                self._tally.implausible += 1
                return CountsAnswer(incarnation=own)
            life = counts.of
        cells_of: dict[bytes, list[Cell]] = {}
        for cell in counts.cells:
            cells_of.setdefault(cell.key, []).append(cell)
        counters: list[PeerCounter] = []
        again: set[bytes] = set()
        now_us = self._clock.now_us()
        for key, cells in cells_of.items():
            limit = self._limits.of_key(key, now_us / 1e6)
            if limit is None:
                again.add(key)  # a limit that is not here yet
                continue
            plausible = tuple(cell for cell in cells if _is_plausible(cell, limit.rule, now_us))
            self._tally.implausible += len(cells) - len(plausible)
            if plausible:
                counters.append(PeerCounter(key, limit.params, plausible))
        if counters:
            merging = await self._store.merge(life, len(book.regions), counters)
            again.update(merging.again)
            if counts.of and merging.news and life.partition("/")[0] == self._region:
                self.on_own_past(life, [cell for cell in counts.cells if cell.key in merging.news])
            self._tally.over += merging.over
            self._tally.most_over = max(self._tally.most_over, merging.most_over)
        now_us = self._clock.now_us()
        # What could not be placed counts nowhere here: everything else is complete without it.
        if counts.complete and counts.to in {"", own}:
            sent_us = int(counts.sent_at * 1e6)
            ages = {number: max(0, sent_us - as_of_us) for number, as_of_us in counts.complete if 0 <= number < SLICES}
            repeated = await self._listen(counts.region, sent_us, ages, sorted(self.peer_urls()))
            self._tally.repeated += 0 < len(ages) == repeated
        news = self.heard.get(counts.region)
        if news is None or counts.sent_at > news.sent_at_s:
            self.heard[counts.region] = PeerNews(counts.sent_at, now_us / 1e6)
        return CountsAnswer(again=tuple(again), incarnation=own)

    async def look(self) -> None:
        """Look who is silent by now."""
        peers = sorted(self.peer_urls())
        if peers:
            await self._listen("", 0, {}, peers)
        else:
            self.staleness_us = {}
            self._on_silent(())

    async def _listen(self, peer: str, sent_us: int, ages_us: Mapping[int, int], peers: Sequence[str]) -> int:
        """Note what was heard, and who is silent by now; of how many slices it was a repeat."""
        repeated, states = await self._store.hear(peer, sent_us, ages_us, peers)
        now_us = self._clock.now_us()
        self.staleness_us = {
            name: now_us - state.as_of_us if state.as_of_us else None for name, state in states.items()
        }
        silent = tuple((name, state.silent_since_us) for name, state in states.items() if state.silent_since_us)
        self._tally.silences.update(name for name, _ in silent if name not in self._silent)
        self._silent = {name for name, _ in silent}
        self._on_silent(silent)
        return repeated


def _is_plausible(cell: Cell, rule: LimitRule, now_us: int) -> bool:
    explained = max(1, capacity(rule))
    if rule.algorithm in BUCKET_ALGORITHMS:  # the window is the birth
        explained += rule.limit * max(0, now_us - cell.window) // nominal_window_us(rule)
    return cell.taken < 2**47 and cell.taken - cell.returned <= IMPLAUSIBLE * explained
