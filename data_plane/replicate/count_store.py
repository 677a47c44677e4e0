"""The counters of ``shared`` limits in the region's store, as the exchange sees them: the scripts of ``lua/``.

No call holds the store for longer than half a millisecond, and none is sent before the one before is answered, so that
decisions come in between.
"""

import contextlib
import hmac
import secrets
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import structlog
from redis.exceptions import RedisError

from data_plane.replicate.mark_sets import MarkSet, mark_sets
from data_plane.replicate.timing import DEFAULT_TIMING
from data_plane.store.ports import Argument, RegionStore, StoreUnavailableError
from data_plane.store.scripts import (
    collect_script,
    end_epoch_script,
    hold_slices_script,
    make_due_script,
    mark_script,
    merge_script,
    received_script,
    settle_script,
)
from data_plane.store.strict_packing import decode_marker
from tidegate.contract.counts import MAX_CELLS, SLICES, Cell

log = structlog.get_logger()

T = TypeVar("T")

LEASES = [b"{tg:lease}:%d" % number for number in range(SLICES)]
LEASE_MS = 3 * DEFAULT_TIMING.tick_us // 1_000
INCARNATION = b"tg:incarnation"
OF_MARKER = b"tg:incarnation:of"
"""The incarnation in the marker (``epoch_store``) that this epoch belongs to: with another one the store came back."""
HEARD = b"tg:heard"
PEERS_SUFFIX = b"!"
"""What the peers of a counter said is stored at its key with this at the end: the same hash tag, the same slot."""

COLLECTED_A_CALL = 80
SETS_A_TURN, MOST_OF_SET = 10, 10
"""On a Cluster so many sets are read in a round trip, and of each at least so many counters."""
MERGED_A_CALL = 80
MARKED_A_CALL = 200
RETIRED_A_CALL = 25
READ_A_CALL = 100
SCANNED_A_CALL = 250
LAZY_US = DEFAULT_TIMING.lazy_us - DEFAULT_TIMING.tick_us
"""News is due so long after the change at the latest (``lua/marks.lua``)."""
RESEND_US = DEFAULT_TIMING.stale_after_us + 1_000_000
"""What was collected and not settled is due again after this: nobody waits longer for a peer's acknowledgement."""

_PEER = struct.Struct("<qqq")
_MET = struct.Struct("<qq")
_KNOWN, _AHEAD = ord("0"), ord("2")


Mark = tuple[Sequence[bytes], int]
"""What names the marks of one collection: the sets that they are in, and the instant that they have there."""


class News(NamedTuple):
    """At most a message's ``number`` of cells, in MessagePack; ``marks`` are to be settled once every peer has them."""

    cells: bytes = b""
    number: int = 0
    marks: tuple[Mark, ...] = ()


class Collected(NamedTuple):
    """News of this region's counters. ``waits_us`` says by slice how long (microseconds) the oldest change that is not
    among them may have been there; ``is_all``: nothing more is due.
    """

    news: Sequence[News]
    waits_us: Mapping[int, int]
    is_all: bool


class PeerCounter(NamedTuple):
    """A peer's cells of one counter, with the script parameters of its limit."""

    key: bytes
    params: bytes
    cells: Sequence[Cell]


class Merging(NamedTuple):
    """What came of a merge: counters of which something was new, those to be sent again, how many were found over their
    limit, by how many units.
    """

    news: Collection[bytes]
    again: Sequence[bytes]
    over: int
    most_over: int


class Heard(NamedTuple):
    """As of when all that a peer counted is known here (0: never), and since when it is unreachable (0: it is not)."""

    as_of_us: int
    unreachable_since_us: int


class HeardPeers(NamedTuple):
    """Of how many slices a message repeated what had been said before, and the state of every peer."""

    repeated: int
    states: Mapping[str, Heard]


class SweptPage(NamedTuple):
    """Where the next page of a sweep begins ('': it was the last), and what earlier epochs of stores had counted."""

    cursor: str
    epochs: Mapping[str, Sequence[Cell]]


class CountStore:
    """Every method raises ``StoreUnavailableError``. Scripts get keys of one slot at a time: a Cluster will do too.

    ``owner`` holds leases. ``secret`` is the region's: what proves that a store's epoch was one of this region's.
    """

    def __init__(
        self, store: RegionStore, owner: str, secret: bytes = b"", token_hex: Callable[[int], str] = secrets.token_hex
    ) -> None:
        self._store = store
        self._marks = mark_sets(store)
        self._secret = secret
        self._token_hex = token_hex
        self._owner = f"{owner}-{token_hex(4)}".encode()
        self._marker = store.dirty_key_of_slot(0) + b"!m" if store.settings.shape != "cluster" else b""
        self._collections = 0

    async def hold_slices(self, most: int) -> Sequence[int]:
        """Take and keep leases on at most that many slices; those held now. Two holders for a moment do no harm."""
        with _store_errors():
            await self._marks.note()
            held = await self._store.call_script(hold_slices_script(), LEASES, [self._owner, LEASE_MS, most])
        return [int(number) for number in held]

    async def epoch(self, region: str, regions: int, is_shared: Callable[[bytes], bool]) -> str:
        """The name of this epoch of the store, which it keeps until its data is lost.

        Where the marker says that the store came back with what it had saved, its own counts become those of the epoch
        that is over, and another begins.
        """
        with _store_errors():
            name, of, marker = await self._epoch()
            if of is None and marker is not None:
                await self._store.execute("SET", OF_MARKER, marker, "NX")
            elif of != marker and marker is not None:
                log.warning("store_came_back", epoch=name.decode())
                name = await self._begin_epoch(region, name, regions, marker, is_shared)
            return name.decode()

    async def epoch_name(self) -> str:
        """The same for who only receives: unavailable while another epoch is to begin."""
        with _store_errors():
            name, of, marker = await self._epoch()
        if of is not None and marker is not None and of != marker:
            raise StoreUnavailableError("NewEpoch")
        return name.decode()

    def knows_epoch(self, name: str) -> bool:
        """Whether a store of this region began an epoch of that name: nobody else can make one up."""
        random, _, proof = name.partition("-")
        return hmac.compare_digest(proof.encode(), self._proof_of(random).encode())

    def new_epoch_name(self) -> str:
        """A name for an epoch of this region's store."""
        random = self._token_hex(8)
        return f"{random}-{self._proof_of(random)}"

    def _proof_of(self, random: str) -> str:
        return hmac.digest(self._secret, b"tidegate store epoch\0" + random.encode(), "sha256")[:8].hex()

    async def _epoch(self) -> tuple[bytes, bytes | None, bytes | None]:
        """The epoch's name, the incarnation that it belongs to, and the marker's own; on a Cluster the name alone."""
        of = marker = None
        if self._store.settings.shape == "cluster":
            name = await self._store.execute("GET", INCARNATION)
        else:
            name, of, marker = await self._store.execute("MGET", INCARNATION, OF_MARKER, self._marker)
        if name is None:
            await self._store.execute("SET", INCARNATION, self.new_epoch_name(), "NX")
            name = await self._store.execute("GET", INCARNATION)
        return name or b"", of, None if marker is None else b"%d" % decode_marker(marker).incarnation

    async def _begin_epoch(
        self, region: str, name: bytes, regions: int, marker: bytes, is_shared: Callable[[bytes], bool]
    ) -> bytes:
        heads: list[Argument] = [region, name, regions]
        names = [INCARNATION, OF_MARKER, HEARD]
        cursor = ""
        while True:
            cursor, keys = await self._store.scan(cursor, "{*", SCANNED_A_CALL)
            ours = [key for key in keys if key[-1:] not in {b"!", b"?"} and is_shared(key)]
            for _, part in self._parts(ours, lambda key: key, RETIRED_A_CALL):
                both = [one for key in part for one in (key, key + PEERS_SUFFIX)]
                await self._store.call_script(end_epoch_script(), [*names, *both], [*heads, "", ""])
            if not cursor:
                break
        await self._store.call_script(end_epoch_script(), names, [*heads, self.new_epoch_name(), marker])
        return await self._store.execute("GET", INCARNATION) or b""

    async def recall(self, slices: Sequence[int]) -> None:
        """Make everything due that waits in these slices: who held them before may have died of it."""
        with _store_errors():
            for sets in _by_call(await self._marks.sets(slices)):
                keys = [one.key for one in sets]
                while await self._store.call_script(make_due_script(), keys, [COLLECTED_A_CALL]):
                    pass

    async def collect(self, slices: Sequence[int]) -> Collected:
        """Take what is due in these slices, a bounded number of counters. It is due again unless it is settled."""
        found: list[News] = []
        waits_us: dict[int, int] = dict.fromkeys(slices, 0)
        is_all = True
        with _store_errors():
            groups = list(_by_call(await self._marks.sets(slices)))
            for start in range(0, len(groups), SETS_A_TURN):
                some = groups[start : start + SETS_A_TURN]
                most = max(MOST_OF_SET, COLLECTED_A_CALL // len(some))
                calls: list[tuple[Sequence[bytes], Sequence[Argument]]] = []
                for sets in some:
                    self._collections += 1
                    again_us = RESEND_US + self._collections % 100_000
                    calls.append(([one.key for one in sets], [most, again_us]))
                for sets, reply in zip(some, await self._store.call_scripts(collect_script(), calls), strict=True):
                    now_us, due_us, counters, number, cells, *scores = reply
                    if counters:
                        _add(found, News(cells, number, (([one.key for one in sets], due_us),)))
                        is_all = is_all and counters < most
                    for one, score in zip(sets, scores, strict=True):
                        if score != b"-1":
                            waits_us[one.slice] = max(waits_us[one.slice], now_us - int(float(score)) + LAZY_US)
                    if not counters and scores == [b"-1"]:
                        await self._marks.are_empty(sets)
        return Collected(found, waits_us, is_all)

    async def settle(self, marks: Iterable[Mark], unplaced: Collection[bytes]) -> None:
        """Every peer has what was collected, but for counters that some could not place: these are due in a second."""
        with _store_errors():
            for keys, due_us in marks:
                arguments: list[Argument] = [due_us, DEFAULT_TIMING.lazy_us, *unplaced]
                await self._store.call_script(settle_script(), keys, arguments)

    async def sweep(
        self, cursor: str, slices: Sequence[int], is_shared: Callable[[bytes], bool], *, epochs: bool
    ) -> SweptPage:
        """Mark a page of all counters of these slices from ``cursor`` ('' begins) as due; with ``epochs``, read also
        what peers, and earlier epochs of this store, had counted in them.
        """
        said: dict[str, list[Cell]] = {}

        def is_ours(key: bytes) -> bool:
            return self._marks.slice_of(key) in slices and is_shared(key)

        with _store_errors():
            following, keys = await self._store.scan(cursor, "{*", SCANNED_A_CALL)
            ours = [key for key in keys if key[-1:] not in {b"!", b"?"} and is_ours(key)]
            for _, part in self._parts(ours, lambda key: key, MARKED_A_CALL):
                await self._store.call_script(mark_script(), [self._store.dirty_key_beside(part[0]), *part], [])
            of_peers = [key for key in keys if epochs and key.endswith(PEERS_SUFFIX) and is_ours(key[:-1])]
            for start in range(0, len(of_peers), READ_A_CALL):
                some = of_peers[start : start + READ_A_CALL]
                for key, raw in zip(some, await self._store.execute_all([("GET", key) for key in some]), strict=True):
                    for epoch, cells in _said(raw or b""):
                        said.setdefault(epoch, []).append(Cell(key[:-1], *cells))
        return SweptPage(following, said)

    async def merge(self, epoch: str, regions: int, counters: Sequence[PeerCounter]) -> Merging:
        """Take what an epoch (``region/incarnation``) counted."""
        news: set[bytes] = set()
        again: list[bytes] = []
        over = most_over = 0
        pack = _PEER.pack
        with _store_errors():
            for dirty, part in self._parts(counters, lambda counter: counter.key, MERGED_A_CALL):
                arguments: list[Argument] = [epoch, regions]
                for _, params, cells in part:
                    one = cells[0]
                    packed = params + pack(one.window, one.taken, one.returned)
                    for one in cells[1:]:
                        packed += pack(one.window, one.taken, one.returned)
                    arguments.append(packed)
                reply = await self._store.call_script(merge_script(), [dirty, *(one.key for one in part)], arguments)
                for counter, outcome in zip(part, reply, strict=False):
                    if outcome != _KNOWN:
                        news.add(counter.key)
                        if outcome == _AHEAD:
                            again.append(counter.key)
                met, most = _MET.unpack_from(reply, len(part))
                over, most_over = over + met, max(most_over, most)
        return Merging(news, again, over, most_over)

    async def told_epoch(self, peer: str) -> str | None:
        """The epoch of a peer's store that was sent everything, by whichever agent of this region."""
        with _store_errors():
            known = await self._store.execute("HGET", HEARD, f"={peer}")
        return known.decode() if known else None

    async def note_told(self, peer: str, epoch: str | None) -> None:
        """That epoch of the peer's store was sent everything; ``None``: nobody knows any more what it was sent."""
        with _store_errors():
            if epoch is None:
                await self._store.execute("HDEL", HEARD, f"={peer}")
            else:
                await self._store.execute("HSET", HEARD, f"={peer}", epoch)

    async def hear(self, peer: str, sent_us: int, ages_us: Mapping[int, int], peers: Sequence[str]) -> HeardPeers:
        """Note how old what is known of a peer's slices (nobody: '') was when it said so; the state of all peers."""
        ages = [figure for pair in ages_us.items() for figure in pair]
        arguments: list[Argument] = [SLICES, DEFAULT_TIMING.stale_after_us, peer, sent_us, len(ages_us), *ages, *peers]
        with _store_errors():
            repeated, *flat = await self._store.call_script(received_script(), [HEARD], arguments)
        triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        states = {name.decode(): Heard(int(as_of_us), int(since_us)) for name, as_of_us, since_us in triples}
        return HeardPeers(int(repeated), states)

    def _parts(
        self, items: Sequence[T], key_of: Callable[[T], bytes], most: int
    ) -> Iterator[tuple[bytes, Sequence[T]]]:
        """Items by what stands for the dirty key in the slot of their keys, in parts short enough for one script."""
        groups: dict[bytes, list[T]] = {}
        for item in items:
            groups.setdefault(self._store.slot_key_beside(key_of(item)), []).append(item)
        for dirty, group in groups.items():
            for start in range(0, len(group), most):
                yield dirty, group[start : start + most]


def _add(found: list[News], news: News) -> None:
    """Put cells into the last of these, where they fit into a message together."""
    if found and found[-1].number + news.number <= MAX_CELLS:
        last = found.pop()
        news = News(last.cells + news.cells, last.number + news.number, last.marks + news.marks)
    found.append(news)


def _by_call(sets: Sequence[MarkSet]) -> Iterator[Sequence[MarkSet]]:
    """Sets that one script may name together: those of one slot."""
    calls: dict[int, list[MarkSet]] = {}
    for one in sets:
        calls.setdefault(one.call, []).append(one)
    return iter(calls.values())


def _said(raw: bytes) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """What a counter's peers said (see ``lua/peer_counts.lua``): window, taken and returned, with ``region/incarnation``."""
    at = 1
    while raw[:1] == b"P" and at < len(raw):
        length = raw[at]
        window, taken, returned = (
            int.from_bytes(raw[at + start : at + end], "little") for start, end in ((1, 8), (8, 14), (14, 20))
        )
        yield raw[at + 20 : at + 20 + length].decode("utf-8", "replace"), (window, taken, returned)
        at += 20 + length


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(type(error).__name__) from error
