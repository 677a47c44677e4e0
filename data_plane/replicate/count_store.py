"""The counters of ``shared`` limits in the region's store, as replication sees them: the scripts of ``lua/``.

A call takes 0.2 to 0.3 ms of the store's CPU, and calls are sent one after another, so that decisions come in
between.
"""

import secrets
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from redis.crc import key_slot

from data_plane.replicate.count_epochs import PEER_COUNTS_SUFFIX, RECEIVED, SCANNED_A_CALL, CountEpochs, is_counter
from data_plane.store.ports import Argument, RegionStore, Reply, ScriptCall
from data_plane.store.redis.slots import parts_by_slot
from data_plane.store.scripts import (
    collect_script,
    hold_leases_script,
    make_due_script,
    mark_script,
    merge_script,
    received_script,
    unlist_slots_script,
    unmark_script,
)
from tidegate.contract.counts import MAX_CELLS, SLICES, Cell


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in microseconds, the same in every region."""

    tick_us: int = 200_000
    lazy_us: int = 1_000_000
    """Small changes are sent within this time."""
    stale_after_us: int = 2_000_000
    """A peer from which nothing was received for this long is unreachable."""
    heartbeat_us: int = 500_000
    sweep_us: int = 300_000_000
    """All counts are sent again at least this often; correctness does not depend on it."""


TIMING = Timing()

LEASES = [b"{tg:lease}:%d" % number for number in range(SLICES)]
LEASE_MS = 3 * TIMING.tick_us // 1_000

COLLECTED_A_CALL = 20
"""About 0.2 ms of the store's CPU, on a small machine."""
SETS_A_TURN, MIN_OF_SET = 10, 10
"""On a Cluster a round trip reads this many sets, and at least this many counters of each."""
MERGED_A_CALL = 25
MARKED_A_CALL = 200
READ_A_CALL = 100
LAZY_US = TIMING.lazy_us - TIMING.tick_us
"""A changed counter is due after this time at the latest (``lua/marks.lua``)."""
RESEND_US = TIMING.stale_after_us + 1_000_000
"""Collected counters are due again after this time unless they are unmarked; acknowledgements come sooner."""

_CELL = struct.Struct("<qqq")
_OVER = struct.Struct("<qq")
_KNOWN, _AHEAD = ord("0"), ord("2")

Mark = tuple[Sequence[bytes], int]
"""The marks of one collection: their sets, and the instant (microseconds) that they have there."""


class MarkSet(NamedTuple):
    """A sorted set of marks and its slice. One script may name sets with the same ``call``."""

    key: bytes
    slice: int
    call: int


class PackedCells(NamedTuple):
    """``number`` cells in MessagePack, at most a message's; ``marks`` are removed once every peer has them."""

    packed: bytes = b""
    number: int = 0
    marks: tuple[Mark, ...] = ()


class Collected(NamedTuple):
    """Changed counters of this region. ``waits_us`` is by slice the longest time (microseconds) that a change which is
    not among them may have waited; ``is_all``: nothing more is due.
    """

    cells: Sequence[PackedCells]
    waits_us: Mapping[int, int]
    is_all: bool


class PeerCounter(NamedTuple):
    """A peer's cells of one counter, with the script parameters of its limit."""

    key: bytes
    params: bytes
    cells: Sequence[Cell]


class MergeResult(NamedTuple):
    """Changed keys, keys that the peer must send again, number of counters over their limit, the most units over."""

    changed: Collection[bytes]
    again: Sequence[bytes]
    over: int
    most_over: int


class PeerState(NamedTuple):
    """The instant up to which a peer's counts are complete (0: never), and since when it is unreachable (0: not)."""

    as_of_us: int
    unreachable_since_us: int


class PeerStates(NamedTuple):
    """The state of every peer, and of how many slices a message was a repeat."""

    repeated: int
    states: Mapping[str, PeerState]


class Look(NamedTuple):
    """What a tick begins with: the names of the epoch (for ``CountEpochs.current``), peers, and the slices held.

    ``idle`` is what ``collect`` would return if nothing is due in the slices held before, else ``None``.
    """

    epoch: Reply
    peers: PeerStates
    held: Sequence[int]
    idle: Collected | None


class SweepPage(NamedTuple):
    """Where the next page of a sweep begins ('' after the last), and the counts of ended epochs on this page."""

    cursor: str
    epochs: Mapping[str, Sequence[Cell]]


class CountStore:
    """Every method raises ``StoreUnavailableError``. Scripts get keys of one slot at a time, as a Cluster demands.

    ``owner`` holds leases. ``secret`` is the region's (``CountEpochs``).
    """

    def __init__(
        self, store: RegionStore, owner: str, secret: bytes = b"", token_hex: Callable[[int], str] = secrets.token_hex
    ) -> None:
        self._store = store
        self._marks = mark_sets(store)
        self._owner = f"{owner}-{token_hex(4)}".encode()
        self._collections = 0
        self.epochs = CountEpochs(store, secret, token_hex)

    async def look(self, peers: Sequence[str], max_slices: int, held: Sequence[int]) -> Look:
        """Everything that a tick begins with, in one round trip; ``held`` are the slices held before."""
        calls: list[Sequence[Argument] | ScriptCall] = [
            self.epochs.reading, _received("", 0, {}, peers), self._holding(max_slices)
        ]  # fmt: skip
        sets = await self._marks.sets(held) if held and self._store.settings.shape != "cluster" else ()
        if sets:
            calls.append(ScriptCall(collect_script(), [mark_set.key for mark_set in sets], [0, 0]))
        await self._marks.note()
        names, states, now_held, *collected = await self._store.execute_all(calls)
        idle = _nothing_due(sets, collected[0]) if collected else None
        return Look(names, _peer_states(states), _numbers(now_held), idle)

    async def hold_slices(self, max_slices: int) -> Sequence[int]:
        """Take and renew leases on at most that many slices. Returns the slices held; two holders do no harm."""
        await self._marks.note()
        return _numbers(await self._store.call_script(*self._holding(max_slices)))

    def _holding(self, max_slices: int) -> ScriptCall:
        return ScriptCall(hold_leases_script(), LEASES, [self._owner, LEASE_MS, max_slices])

    async def make_due(self, slices: Sequence[int]) -> None:
        """Make all waiting marks of these slices due, as the holder before may have died before it unmarked them."""
        for sets in _by_script_call(await self._marks.sets(slices)):
            keys = [mark_set.key for mark_set in sets]
            while await self._store.call_script(make_due_script(), keys, [COLLECTED_A_CALL]):
                pass

    async def collect(self, slices: Sequence[int]) -> Collected:
        """Take a bounded number of due counters of these slices. They are due again unless they are unmarked."""
        found: list[PackedCells] = []
        waits_us: dict[int, int] = dict.fromkeys(slices, 0)
        is_all = True
        groups = list(_by_script_call(await self._marks.sets(slices)))
        for start in range(0, len(groups), SETS_A_TURN):
            turn = groups[start : start + SETS_A_TURN]
            max_counters = max(MIN_OF_SET, COLLECTED_A_CALL // len(turn))
            calls: list[ScriptCall] = []
            for sets in turn:
                self._collections += 1
                again_us = RESEND_US + self._collections % 100_000
                keys = [mark_set.key for mark_set in sets]
                calls.append(ScriptCall(collect_script(), keys, [max_counters, again_us]))
            for sets, reply in zip(turn, await self._store.execute_all(calls), strict=True):
                now_us, due_us, counters, number, cells, *scores = reply
                if counters:
                    marks = (([mark_set.key for mark_set in sets], due_us),)
                    _append_cells(found, PackedCells(cells, number, marks))
                    is_all = is_all and counters < max_counters
                for mark_set, score in zip(sets, scores, strict=True):
                    waits_us[mark_set.slice] = max(waits_us[mark_set.slice], _waited_us(now_us, score))
                if not counters and scores == [b"-1"]:
                    await self._marks.drop_empty(sets)
        return Collected(found, waits_us, is_all)

    async def unmark(self, marks: Iterable[Mark], unplaced: Collection[bytes]) -> None:
        """Remove marks that every peer has acknowledged. ``unplaced`` counters are due again in a second."""
        for keys, due_us in marks:
            arguments: list[Argument] = [due_us, TIMING.lazy_us, *unplaced]
            await self._store.call_script(unmark_script(), keys, arguments)

    async def sweep(
        self, cursor: str, slices: Sequence[int], is_shared: Callable[[bytes], bool], *, epochs: bool
    ) -> SweepPage:
        """Mark a page of all counters of these slices as due, from ``cursor`` on ('' begins).

        With ``epochs`` it also reads the counts of peers, and of this store's ended epochs, on the page. It reads those
        of all slices: an agent passes on what it receives of any slice, and has to make up for what it did not.
        """
        counts: dict[str, list[Cell]] = {}
        following, keys = await self._store.scan(cursor, "{*", SCANNED_A_CALL)
        counters = [key for key in keys if is_counter(key) and is_shared(key) and self._marks.slice_of(key) in slices]
        for _, part in parts_by_slot(self._store, counters, lambda key: key, MARKED_A_CALL):
            await self._store.call_script(mark_script(), [self._store.dirty_key_beside(part[0]), *part], [])
        of_peers = [key for key in keys if epochs and key.endswith(PEER_COUNTS_SUFFIX) and is_shared(key[:-1])]
        for start in range(0, len(of_peers), READ_A_CALL):
            part = of_peers[start : start + READ_A_CALL]
            for key, raw in zip(part, await self._store.execute_all([("GET", key) for key in part]), strict=True):
                for epoch, cells in _peer_cells(raw or b""):
                    counts.setdefault(epoch, []).append(Cell(key[:-1], *cells))
        return SweepPage(following, counts)

    async def merge(self, epoch: str, regions: int, counters: Sequence[PeerCounter]) -> MergeResult:
        """Merge counts of one epoch (``region/incarnation``) of a peer's store."""
        changed: set[bytes] = set()
        again: list[bytes] = []
        over = most_over = 0
        pack = _CELL.pack
        for dirty, part in parts_by_slot(self._store, counters, lambda counter: counter.key, MERGED_A_CALL):
            arguments: list[Argument] = [epoch, regions]
            for _, params, cells in part:
                cell = cells[0]
                packed = params + pack(cell.window, cell.taken, cell.returned)
                for cell in cells[1:]:
                    packed += pack(cell.window, cell.taken, cell.returned)
                arguments.append(packed)
            keys = [dirty, *(counter.key for counter in part)]
            reply = await self._store.call_script(merge_script(), keys, arguments)
            for counter, outcome in zip(part, reply, strict=False):
                if outcome != _KNOWN:
                    changed.add(counter.key)
                    if outcome == _AHEAD:
                        again.append(counter.key)
            part_over, part_most_over = _OVER.unpack_from(reply, len(part))
            over, most_over = over + part_over, max(most_over, part_most_over)
        return MergeResult(changed, again, over, most_over)

    async def note_received(
        self, peer: str, sent_us: int, ages_us: Mapping[int, int], peers: Sequence[str]
    ) -> PeerStates:
        """Note how old a peer's slices were when it sent them ('' notes nothing). Returns the state of all peers."""
        return _peer_states(await self._store.call_script(*_received(peer, sent_us, ages_us, peers)))


def _received(peer: str, sent_us: int, ages_us: Mapping[int, int], peers: Sequence[str]) -> ScriptCall:
    ages = [figure for pair in ages_us.items() for figure in pair]
    arguments: list[Argument] = [SLICES, TIMING.stale_after_us, peer, sent_us, len(ages_us), *ages, *peers]
    return ScriptCall(received_script(), [RECEIVED], arguments)


def _peer_states(reply: Reply) -> PeerStates:
    repeated, *flat = reply
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    states = {name.decode(): PeerState(int(as_of_us), int(since_us)) for name, as_of_us, since_us in triples}
    return PeerStates(int(repeated), states)


def _waited_us(now_us: int, score: bytes) -> int:
    """For how long a change may have waited that is due at ``score``; 0 if there is none (-1)."""
    return 0 if score == b"-1" else max(0, now_us - int(float(score)) + LAZY_US)


def _nothing_due(sets: Sequence[MarkSet], reply: Reply) -> Collected | None:
    """An empty collection, if the reply of ``collect`` shows that nothing is due; ``None`` otherwise."""
    now_us, _, _, _, _, *scores = reply
    if any(score != b"-1" and not now_us < int(float(score)) <= now_us + RESEND_US for score in scores):
        return None
    waits_us = {mark_set.slice: _waited_us(now_us, score) for mark_set, score in zip(sets, scores, strict=True)}
    return Collected((), waits_us, True)


def _numbers(reply: Reply) -> Sequence[int]:
    return [int(number) for number in reply]


def _append_cells(found: list[PackedCells], cells: PackedCells) -> None:
    """Append cells, joined to the last ones where both fit into one message."""
    if found and found[-1].number + cells.number <= MAX_CELLS:
        last = found.pop()
        cells = PackedCells(last.packed + cells.packed, last.number + cells.number, last.marks + cells.marks)
    found.append(cells)


def _by_script_call(sets: Sequence[MarkSet]) -> Iterator[Sequence[MarkSet]]:
    """Group sets that one script may name together: those of one slot."""
    calls: dict[int, list[MarkSet]] = {}
    for mark_set in sets:
        calls.setdefault(mark_set.call, []).append(mark_set)
    return iter(calls.values())


def _peer_cells(raw: bytes) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Read a counter's peer counts (``lua/receive.lua``): ``region/incarnation``, then window, taken, returned."""
    offset = 1
    while raw[:1] == b"P" and offset < len(raw):
        length = raw[offset]
        window, taken, returned = (
            int.from_bytes(raw[offset + start : offset + end], "little") for start, end in ((1, 8), (8, 14), (14, 20))
        )
        yield raw[offset + 20 : offset + 20 + length].decode("utf-8", "replace"), (window, taken, returned)
        offset += 20 + length


def mark_sets(store: RegionStore) -> "SliceMarks | SlotMarks":
    """Where marks of changed counters are stored: one sorted set a slice on one server, one a slot on a Cluster."""
    return SlotMarks(store) if store.settings.shape == "cluster" else SliceMarks(store.dirty_key_of_slot(0))


class SliceMarks:
    """One server: eight sets, by the sum of a key's bytes (``lua/marks.lua``)."""

    def __init__(self, dirty_key: bytes) -> None:
        self._dirty_key = dirty_key

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        return sum(key) % SLICES

    async def note(self) -> None:
        """Nothing to list: the sets are fixed."""

    async def sets(self, slices: Sequence[int]) -> Sequence[MarkSet]:
        """The one set of each."""
        return [MarkSet(self._dirty_key + b"%d" % slice, slice, 0) for slice in slices]

    async def drop_empty(self, sets: Sequence[MarkSet]) -> None:
        """Nothing to do: the sets are fixed."""


class SlotMarks:
    """A Cluster: a set for each slot; a slice is every eighth slot.

    A Cluster has thousands of slots, and few have marks at a time. Every node notes these in a shared list, where the
    holder of a slice finds what other nodes marked.
    """

    def __init__(self, store: RegionStore) -> None:
        self._store = store
        self._last_touched: set[int] = set()
        self._listed: dict[int, Mapping[bytes, bytes]] = {}

    def slice_of(self, key: bytes) -> int:
        """The slice of a counter."""
        return key_slot(key) % SLICES

    async def note(self) -> None:
        """List the slots that this process touched, twice each, as a script may run later than it was sent."""
        touched = self._store.take_touched()
        noted, self._last_touched = touched | self._last_touched, touched
        await self._store.execute_all(
            [("HINCRBY", _list_of(slot % SLICES), self._store.dirty_key_of_slot(slot), 1) for slot in sorted(noted)]
        )

    async def sets(self, slices: Sequence[int]) -> Sequence[MarkSet]:
        """The listed sets."""
        found: list[MarkSet] = []
        for slice in slices:
            self._listed[slice] = await self._store.execute("HGETALL", _list_of(slice))
            found += [MarkSet(name, slice, key_slot(name)) for name in self._listed[slice]]
        return found

    async def drop_empty(self, sets: Sequence[MarkSet]) -> None:
        """Take sets off the list, unless a process marked there meanwhile."""
        for mark_set in sets:
            number = self._listed[mark_set.slice].get(mark_set.key, b"")
            await self._store.call_script(unlist_slots_script(), [_list_of(mark_set.slice)], [mark_set.key, number])


def _list_of(slice: int) -> bytes:
    """The hash that lists a slice's sets, each with how often it was noted."""
    return b"tg:marked:%d" % slice
