"""What the exchange of counts needs: the cells in the region's store, and the way to other regions."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from contract.counts import Cell, Counts, CountsAnswer
from data_plane.domain.counts_wire import Collected


class MarkedKey(NamedTuple):
    """A counter with news, since when (store's clock, microseconds), and its cells as they are now."""

    key: bytes
    since_us: int
    own: Collected


class Marks(NamedTuple):
    """Counters of a slice with news, oldest first. ``rest_us``: since when the others wait, 0 where these are all."""

    keys: Sequence[MarkedKey]
    rest_us: int


class PeerCounter(NamedTuple):
    """A peer's cells of one counter, with the script parameters of its limit."""

    key: bytes
    params: bytes
    cells: tuple[Cell, ...]


class Merging(NamedTuple):
    """What came of a merge: counters of which something was new, those to be sent again, how many were found over their
    limit, by how many units.
    """

    news: Collection[bytes]
    again: Sequence[bytes]
    over: int
    most_over: int


class Heard(NamedTuple):
    """As of when all that a peer counted is known here (0: never), and since when it is silent (0: it is not)."""

    as_of_us: int
    silent_since_us: int


class HeardPeers(NamedTuple):
    """Of how many slices a message repeated what had been said before, and the state of every peer."""

    repeated: int
    states: Mapping[str, Heard]


class SweptPage(NamedTuple):
    """Where the next page of a sweep begins ('': it was the last), and what peers' earlier lives had counted."""

    cursor: str
    lives: Mapping[str, Sequence[Cell]]


class CountStore(Protocol):
    """The cells in the region's store. Every method raises ``StoreUnavailableError``."""

    async def hold_slices(self, most: int) -> Sequence[int]:
        """Take and keep leases on at most that many slices; those that this node holds now."""
        ...

    async def begin_life(self, region: str, regions: int, is_told: Callable[[bytes], bool]) -> None:
        """Begin another life where the store came back with what it had saved: those counts are the old one's."""
        ...

    async def incarnation(self) -> str:
        """The name of this life of the store: another one after its data was lost. Unavailable until it has begun."""
        ...

    async def marked(self, slices: Sequence[int]) -> Mapping[int, Marks]:
        """The counters of each of these slices that have waited longest, at most a bounded number of each."""
        ...

    async def settle(self, keys: Mapping[int, Sequence[MarkedKey]]) -> None:
        """Unmark what has not changed since it was read, by slice."""
        ...

    async def sweep(
        self, cursor: str, slices: Sequence[int], is_told: Callable[[bytes], bool], *, lives: bool
    ) -> SweptPage:
        """Mark a page of all counters of these slices from ``cursor`` ('' begins) as changed; with ``lives``, read also
        what peers had counted in them.
        """
        ...

    async def merge(self, life: str, regions: int, counters: Sequence[PeerCounter]) -> Merging:
        """Take what a life (``region/incarnation``) counted."""
        ...

    async def told_life(self, peer: str) -> str | None:
        """The life of a peer's store that was told everything, by whichever node of this region."""
        ...

    async def note_told(self, peer: str, incarnation: str | None) -> None:
        """That life of the peer's store was told everything; ``None``: nobody knows any more what it was told."""
        ...

    async def hear(self, peer: str, sent_us: int, ages_us: Mapping[int, int], peers: Sequence[str]) -> HeardPeers:
        """Note how old what is known of a peer's slices (nobody: '') was when it said so; the state of all peers."""
        ...


class UnreachablePeerError(Exception):
    """A peer did not answer, or refused."""


class PeerTransport(Protocol):
    """The way to another region's nodes."""

    async def send(self, to_region: str, url: str, counts: Counts) -> CountsAnswer:
        """Deliver one batch. Raises ``UnreachablePeerError``."""
        ...


class ReconcileTally:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self.sent_cells = 0
        self.messages = 0
        self.failures: Counter[str] = Counter()
        self.handed_back_cells = 0
        self.sweeps = 0
        self.over = 0
        """Merges that found a counter over its limit."""
        self.most_over = 0
        """The most units over that any of them found."""
        self.implausible = 0
        self.repeated = 0
        """Messages that said nothing of now, because they had been sent before: replays, or doubled on the way."""
        self.silences: Counter[str] = Counter()
        """Times that a peer fell silent, and its share was kept for it from then on."""
