"""What one region tells its peers and hears of them, on a real store; the peers are the test's own."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

import msgspec
import pytest

from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.replicate import anti_entropy, count_store, peer_session
from data_plane.replicate.count_store import TIMING, CountStore, PeerCounter
from data_plane.replicate.peer_session import ReplicationTally
from data_plane.replicate.receiver import Receiver
from data_plane.replicate.sender import Sender
from data_plane.store.packing import encode_rule
from data_plane.store.ports import StoreUnavailableError, UnreachablePeerError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.redis.topology import MARKER
from data_plane.store.strict_packing import Marker
from testing.node import document_of, rule
from testing.packed import encode_marker
from tests.integration.redis.conftest import OpenStore
from tests.integration.redis.load import ask
from tidegate.contract.config import Plan, Region
from tidegate.contract.counts import SLICES, Cell, Counts, CountsAnswer

ALGORITHMS = ("fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket")
YEAR_US = 366 * 86_400_000_000
LIMITS = {
    algorithm: rule(id, algorithm, 100, mode="shared", algorithm=algorithm, window_us=YEAR_US)
    for id, algorithm in enumerate(ALGORITHMS, 1)
}
PARAMS = encode_rule(LIMITS["fixed_window"], shared=True)
EVERY_SLICE = range(SLICES)
OWN, OTHERS = EVERY_SLICE[: SLICES // 2], EVERY_SLICE[SLICES // 2 :]
"""The slices that the agent under test takes where there are two, and those of the other."""


class Peers:
    """Port ``PeerTransport``: whoever is not ``away`` answers, and cannot place the keys in ``unplaceable``."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.lives: dict[str, str] = {}
        self.unplaceable: set[bytes] = set()
        self.slow: dict[str, asyncio.Event] = {}
        self.told: dict[str, list[Counts]] = {}

    async def send(self, to_region: str, url: str, message: bytes) -> CountsAnswer:
        """Take a message."""
        if to_region in self.away:
            raise UnreachablePeerError("away")
        if to_region in self.slow:
            await self.slow[to_region].wait()
        counts = msgspec.msgpack.decode(message, type=Counts)
        self.told.setdefault(to_region, []).append(counts)
        again = tuple({cell.key for cell in counts.cells} & self.unplaceable)
        return CountsAnswer(again=again, incarnation=self.lives.get(to_region, "first"))


class East:
    """The region under test. Its clock may be put forward by ``later_s``."""

    def __init__(self, store: RedisCounterStore) -> None:
        self.store = store
        self.later_s = 0.0
        self.live_agents = 1
        self.peers = Peers()
        self.counts = CountStore(store, "node", b"of us-east")
        self.tally = ReplicationTally()
        self.silent: tuple[tuple[str, int], ...] = ()
        self.meet("eu-west", "ap-south")
        self.receiver = Receiver(
            "us-east", self.counts, self, lambda: self.index, self.tally, self._hear,
            self._forward,
        )  # fmt: skip
        self.sender = Sender(
            "us-east", self.counts, self.peers, self, lambda: self.index, lambda: self.live_agents, self.receiver,
            self.tally,
        )  # fmt: skip

    def _forward(self, epoch: str, cells: Sequence[Cell]) -> None:
        self.sender.anti_entropy.forward(epoch, cells)

    def now_us(self) -> int:
        """Port ``Clock``."""
        return time.time_ns() // 1_000 + int(self.later_s * 1e6)

    def meet(self, *names: str, **members: str | None) -> None:
        """These are the peers from now on."""
        regions = [
            Region(region="us-east"),
            *(Region(region=name, **{"peer_url": f"http://{name}", **members}) for name in names),
        ]
        values = [Plan(plan="p", limits=tuple(LIMITS.values())), *regions]
        self.index = RuleIndex.of("us-east", ConfigSet.empty().with_changes(map(document_of, values)))

    async def take(self, cost: int, key: bytes = b"{acme}1", params: bytes = PARAMS) -> int:
        """Admit something; what remains."""
        asked = await ask(self.store, (key,), (params,), cost)
        assert asked.verdict == "allowed"
        return asked.answers[0][0].remaining

    async def take_many(self) -> Sequence[bytes]:
        """Admit something of each of fifty counters; their keys."""
        keys = [b"{c%d}1" % number for number in range(50)]
        for key in keys:
            await self.take(1, key)
        return keys

    async def is_noted(self, peer: str, slices: Sequence[int]) -> bool:
        """Whether the store says that a peer was sent everything of these slices."""
        return await self.counts.epochs.sent_everything(peer, slices) == self.peers.lives.get(peer, "first")

    async def marks(self) -> int:
        """How many counters have news that somebody may not know."""
        return sum([await self.store.execute("ZCARD", b"tg:dirty%d" % slice) for slice in EVERY_SLICE])

    async def tick_until(self, holds: Callable[[], object]) -> None:
        """Send and receive until something is so."""
        async with asyncio.timeout(20):
            while True:
                await self.sender.tick()
                await asyncio.sleep(0.01)
                if await holds():
                    return

    async def is_unmarked(self) -> bool:
        """Whether all is known everywhere."""
        return await self.marks() == 0 and set(self.peers.told) >= set(self.receiver.peer_urls())

    def _hear(self, silent: tuple[tuple[str, int], ...]) -> None:
        self.silent = silent


@pytest.fixture
async def east(valkey_url: str, open_store: OpenStore):
    east = East(await open_store(valkey_url))
    yield east
    await east.sender.stop()


def heartbeat(east: East, cells: Iterable[Cell] = (), **members) -> Counts:
    """What eu-west says: that all is known up to now."""
    now_us = east.now_us()
    complete = tuple((slice, now_us) for slice in EVERY_SLICE)
    known = {"region": "eu-west", "incarnation": "w", "sent_at": now_us / 1e6, "complete": complete}
    return Counts(cells=tuple(cells), **{**known, **members})


async def test_marks_do_not_wait_for_a_region_that_left(east):
    await east.take(30)
    await east.tick_until(east.is_unmarked)
    east.meet("eu-west")
    await east.take(30)
    await east.tick_until(east.is_unmarked)
    assert max(cell.taken for counts in east.peers.told["eu-west"] for cell in counts.cells) == 60


async def test_marks_do_not_gather_where_nobody_can_be_told(east):
    east.meet("eu-west", peer_url=None)
    await east.take(30)
    await east.tick_until(east.is_unmarked)


async def test_a_region_that_left_and_came_back_is_told_what_it_missed(east):
    await east.take(30)
    await east.tick_until(east.is_unmarked)
    await east.counts.epochs.note_sent_everything("ap-south", EVERY_SLICE, "first")
    east.meet("eu-west")
    await east.take(30)
    await east.tick_until(east.is_unmarked)
    assert await east.counts.epochs.sent_everything("ap-south", EVERY_SLICE) is None, (
        "it does not know everything any more"
    )
    del east.peers.told["ap-south"]
    east.meet("eu-west", "ap-south")

    async def knows():
        return any(cell.taken == 60 for counts in east.peers.told.get("ap-south", ()) for cell in counts.cells)

    await east.tick_until(knows)


async def test_what_is_to_be_handed_back_does_not_grow_while_a_peer_is_away(east):
    keys = [b"{c%d}1" % number for number in range(50)]
    await east.counts.merge(
        "eu-west/old", 3, [PeerCounter(key, PARAMS, (Cell(key, east.now_us() // YEAR_US, 3),)) for key in keys]
    )
    east.peers.away.add("eu-west")
    for _ in range(4):
        sweeps = east.tally.sweeps
        east.later_s += TIMING.sweep_us / 1e6 + 1

        async def swept(before=sweeps):
            return east.tally.sweeps > before and not east.sender.anti_entropy.is_under_way

        await east.tick_until(swept)
    east.peers.away.clear()

    async def has_it_back():
        return east.tally.handed_back_cells and not any(one.needs_everything for one in east.sender.sessions.values())

    await east.tick_until(has_it_back)
    back = [cell.key for counts in east.peers.told["eu-west"] if counts.of == "eu-west/old" for cell in counts.cells]
    assert sorted(back) == sorted(keys)


async def test_a_counter_that_a_peer_cannot_place_holds_up_nothing_else(east):
    await east.take(30)
    await east.take(30, b"{other}1")
    east.peers.unplaceable.add(b"{other}1")
    await east.tick_until(east.is_unmarked)
    begun_us = east.now_us()

    async def is_complete():
        said = [dict(counts.complete) for counts in east.peers.told["eu-west"]]
        newest = {slice: max(one.get(slice, 0) for one in said) for slice in EVERY_SLICE}
        return min(newest.values()) > begun_us

    await east.take(1, b"{other}1")
    await east.tick_until(is_complete)
    east.peers.unplaceable.clear()
    east.peers.told.clear()
    await east.take(1, b"{other}1")

    async def knows():
        return any(cell.taken == 32 for counts in east.peers.told.get("eu-west", ()) for cell in counts.cells)

    await east.tick_until(knows)


async def test_a_limit_that_is_not_here_yet_does_not_silence_who_tells_of_it(east):
    for name in ("eu-west", "ap-south"):
        answer = await east.receiver.receive(heartbeat(east, [Cell(b"{acme}77", 1, 1)], region=name))
        assert answer.again == (b"{acme}77",)
    await east.receiver.check_peers()
    assert east.silent == ()


async def test_who_only_repeats_what_it_said_falls_silent(east):
    east.meet("eu-west")
    said = heartbeat(east)
    await east.receiver.receive(said)
    assert east.silent == ()
    assert east.tally.repeated == 0
    async with asyncio.timeout(20):
        while not east.silent:
            await east.receiver.receive(said)
            await asyncio.sleep(0.02)
    assert east.tally.repeated > 0
    await east.receiver.receive(heartbeat(east))
    assert east.silent == ()


async def test_who_has_its_clock_set_back_goes_on_telling(east):
    east.later_s = 3_600
    await east.take(30)
    await east.tick_until(east.is_unmarked)
    east.later_s = 0
    begun_us = east.now_us()
    east.peers.told.clear()

    async def is_complete():
        said = {
            slice for counts in east.peers.told.get("eu-west", ()) for slice, us in counts.complete if us > begun_us
        }
        return said == set(EVERY_SLICE)

    await east.tick_until(is_complete)


async def test_a_peer_that_was_never_heard_is_known_to_be_silent(east):
    await east.receiver.check_peers()
    assert [name for name, _ in east.silent] == ["ap-south", "eu-west"]
    assert east.receiver.staleness_us == {"ap-south": None, "eu-west": None}


async def test_what_a_store_that_came_back_had_told_nobody_is_told_as_the_earlier_life_s(east):
    await east.store.execute("SET", MARKER, encode_marker(Marker(1, 0, 1, "run")))
    await east.take(30)
    await east.tick_until(east.is_unmarked)
    first = await east.counts.epochs.name()
    await east.take(1)
    await east.store.execute("SET", MARKER, encode_marker(Marker(2, 0, 1, "another run")))
    await east.take(2)

    async def is_told():
        told = [(counts.of, cell.taken) for counts in east.peers.told["ap-south"] for cell in counts.cells]
        return (f"us-east/{first}", 33) in told

    await east.tick_until(is_told)
    earlier = Cell(b"{acme}1", east.now_us() // YEAR_US, 9)
    await east.receiver.receive(heartbeat(east, [earlier], of="eu-west/before"))
    assert await east.take(1) == 100 - 33 - 9 - 1
    await east.receiver.receive(heartbeat(east, [earlier], of="ap-south/before"))
    assert await east.take(1) == 100 - 33 - 9 - 2, "nobody speaks for a third"


async def test_an_epoch_that_was_named_before_there_was_a_marker_ends_with_it(east):
    await east.take(30)
    await east.tick_until(east.is_unmarked)
    first = await east.counts.epochs.name()
    await east.store.execute("SET", MARKER, encode_marker(Marker(2, 0, 1, "of a copy from before the marker, maybe")))

    async def is_told():
        told = [(counts.of, cell.taken) for counts in east.peers.told["eu-west"] for cell in counts.cells]
        return (f"us-east/{first}", 30) in told

    await east.tick_until(is_told)
    assert await east.counts.epochs.name() != first


async def test_an_epoch_that_is_named_beside_a_marker_belongs_to_it(east):
    await east.store.execute("SET", MARKER, encode_marker(Marker(1, 0, 1, "run")))
    first = await east.counts.epochs.name()
    await east.sender.tick()
    assert await east.counts.epochs.name() == first


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_store_that_came_back_with_what_it_had_saved_is_another_life(east, algorithm):
    params = encode_rule(LIMITS[algorithm], shared=True)
    key = b"{acme}%d" % LIMITS[algorithm].id
    full = await east.take(0, key, params)
    await east.store.execute("SET", MARKER, encode_marker(Marker(1, 0, 1, "run")))
    await east.take(30, key, params)
    await east.tick_until(east.is_unmarked)
    first = await east.counts.epochs.name()
    copy = await east.store.execute("DUMP", key)
    await east.take(20, key, params)
    await east.tick_until(east.is_unmarked)
    (known,) = (cell for cell in east.peers.told["eu-west"][-1].cells)
    assert known.taken == 50

    await east.store.execute("RESTORE", key, 0, copy, "REPLACE")
    await east.store.execute("SET", MARKER, encode_marker(Marker(2, 0, 1, "another run")))
    with pytest.raises(StoreUnavailableError):
        await east.receiver.receive(heartbeat(east))
    east.peers.told.clear()
    await east.sender.tick()
    second = await east.counts.epochs.name()
    assert second != first
    assert await east.take(0, key, params) == full - 30, "what it remembers is not forgotten"
    assert [name for name, _ in east.silent] == ["ap-south", "eu-west"]
    await east.receiver.receive(heartbeat(east, [known], of=f"us-east/{first}", complete=()))
    assert await east.take(10, key, params) == full - 60, "nor what a peer knows beyond that; nothing counts twice"

    async def is_told():
        told = [counts for counts in east.peers.told.get("eu-west", ()) if counts.cells]
        return told and (told[-1].incarnation, told[-1].cells[-1].taken) == (second, 10)

    await east.tick_until(is_told)
    for life, silent in ((first, True), (second, False)):
        await east.receiver.receive(heartbeat(east, to=life))
        assert ("eu-west" in dict(east.silent)) == silent


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_what_is_counted_after_an_epoch_ended_with_unsent_counts_is_sent(east, algorithm):
    params, key = encode_rule(LIMITS[algorithm], shared=True), b"{acme}%d" % LIMITS[algorithm].id
    await east.store.execute("SET", MARKER, encode_marker(Marker(1, 0, 1, "run")))
    await east.take(30, key, params)
    await east.tick_until(east.is_unmarked)
    await east.take(1, key, params)
    await east.store.execute("SET", MARKER, encode_marker(Marker(2, 0, 1, "another run")))
    await east.tick_until(east.is_unmarked)
    await east.take(1, key, params)
    assert await east.marks() == 1


async def test_what_one_peer_alone_knew_of_an_earlier_life_here_is_passed_on_once(east):
    """The sweep that tells of earlier lives is over by then."""
    await east.take(1)
    await east.tick_until(east.is_unmarked)
    east.peers.told.clear()
    lost = Cell(b"{acme}1", east.now_us() // YEAR_US, 9)
    before = f"us-east/{east.counts.epochs.new_name()}"

    async def passed_on():
        return any(counts.of == before for counts in east.peers.told.get("ap-south", ()))

    for is_news in (True, False):
        await east.receiver.receive(heartbeat(east, [lost], of=before))
        if is_news:
            await east.tick_until(passed_on)
            (counts,) = (counts for counts in east.peers.told["ap-south"] if counts.of)
            assert counts.cells == (lost,)
        else:
            east.peers.told.clear()
            await east.take(1)
            await east.tick_until(east.is_unmarked)
            assert not await passed_on()


async def test_what_is_passed_on_while_a_message_is_under_way_is_sent_with_the_next(east):
    await east.take(1)
    await east.tick_until(east.is_unmarked)
    east.peers.told.clear()
    window, before = east.now_us() // YEAR_US, f"us-east/{east.counts.epochs.new_name()}"
    east.peers.slow["ap-south"] = asyncio.Event()
    await east.receiver.receive(heartbeat(east, [Cell(b"{acme}1", window, 9)], of=before))

    async def eu_west_has_it():
        return any(counts.of == before for counts in east.peers.told.get("eu-west", ()))

    await east.tick_until(eu_west_has_it)
    await east.receiver.receive(heartbeat(east, [Cell(b"{acme}1", window, 12)], of=before))
    east.peers.slow.pop("ap-south").set()

    async def is_sent():
        return not any(session.hand_back for session in east.sender.sessions.values())

    await east.tick_until(is_sent)
    taken = [cell.taken for counts in east.peers.told["ap-south"] if counts.of == before for cell in counts.cells]
    assert taken == [9, 12]


async def test_what_a_late_message_adds_to_an_ended_epoch_is_handed_back(east):
    """eu-west began a new epoch and was handed back the old one before its last message of that one arrives."""
    window = east.now_us() // YEAR_US
    await east.receiver.receive(heartbeat(east, [Cell(b"{acme}1", window, 3)], incarnation="old"))

    async def is_sent():
        return not any(session.needs_everything or session.hand_back for session in east.sender.sessions.values())

    await east.tick_until(is_sent)
    east.peers.told.clear()
    late = [Cell(b"{acme}1", window, 5)]
    await east.receiver.receive(heartbeat(east, late, incarnation="old"))
    await east.receiver.receive(heartbeat(east, [Cell(b"{other}1", window, 1)], incarnation="first"))
    await east.tick_until(is_sent)
    back = [(counts.of, counts.cells) for counts in east.peers.told["eu-west"] if counts.of]
    assert back == [("eu-west/old", tuple(late))]
    assert not any(counts.of for counts in east.peers.told.get("ap-south", ()))


@pytest.mark.parametrize("placed_at_last", [4, 99])
async def test_what_a_peer_cannot_place_of_an_ended_epoch_is_sent_again_ever_more_seldom(
    east, monkeypatch, placed_at_last
):
    await east.tick_until(lambda: east.is_noted("ap-south", EVERY_SLICE))
    now_us = east.now_us()
    monkeypatch.setattr(east, "now_us", lambda: now_us + int(east.later_s * 1e6))
    window, before = now_us // YEAR_US, f"us-east/{east.counts.epochs.new_name()}"
    placed, unplaced = Cell(b"{acme}1", window, 9), Cell(b"{other}1", window, 9)
    east.peers.unplaceable.add(unplaced.key)
    await east.receiver.receive(heartbeat(east, [placed, unplaced], of=before))
    told: list[Sequence[Cell]] = []

    async def are_told(after_s: float) -> int:
        east.later_s += after_s
        for _ in range(5):
            await east.sender.tick()
            await asyncio.sleep(0.01)
        told[:] = [counts.cells for counts in east.peers.told["ap-south"] if counts.of]
        return len(told)

    assert await are_told(0) == 1
    times = min(placed_at_last, 10)
    for number in range(2, times + 1):
        if number == placed_at_last:
            east.peers.unplaceable.clear()
        assert await are_told(2 ** (number - 2) - 0.1) == number - 1
        assert not east.sender.sessions["ap-south"].is_sent_everything
        assert await are_told(0.1) == number
    assert await are_told(1000) == times
    assert east.sender.sessions["ap-south"].is_sent_everything
    assert told == [(placed, unplaced), *[(unplaced,)] * (times - 1)]


async def test_an_agent_sends_counts_of_ended_epochs_also_of_slices_that_another_agent_holds(east):
    """Whoever receives counts of an ended epoch passes them on, whichever agent holds their slice; it may be the only
    one for which a peer was away.
    """
    east.live_agents = 2
    before = f"us-east/{east.counts.epochs.new_name()}"
    keys = [b"{c%d}1" % number for number in range(50)]
    east.peers.away.add("ap-south")

    async def hears_eu_west():
        return east.tally.failures["ap-south"] and not east.sender.sessions["eu-west"].needs_everything

    await east.tick_until(hears_eu_west)
    assert 0 < east.sender.slices < SLICES
    lost = [Cell(key, east.now_us() // YEAR_US, 3) for key in keys]
    await east.receiver.receive(heartbeat(east, lost, of=before))
    east.peers.away.clear()

    async def is_sent_everything():
        return not east.sender.sessions["ap-south"].needs_everything and not east.sender.sessions["ap-south"].hand_back

    await east.tick_until(is_sent_everything)
    back = [cell.key for counts in east.peers.told["ap-south"] if counts.of == before for cell in counts.cells]
    assert sorted(back) == sorted(keys)


async def test_an_epoch_that_this_region_never_had_is_not_handed_back(east):
    """With a name that it made up eu-west would drain whom it likes in us-east."""
    assert await east.take(1) == 99
    await east.tick_until(east.is_unmarked)
    known = await east.counts.epochs.name()
    drained = Cell(b"{acme}1", east.now_us() // YEAR_US, 99)
    elsewhere = CountStore(east.store, "node", b"of eu-west").epochs.new_name()
    for invented in (
        "before",
        "",
        "0123456789abcdef",
        f"{known[:-1]}{(int(known[-1], 16) + 1) % 16:x}",
        elsewhere,
        known,
    ):
        refused = east.tally.implausible
        await east.receiver.receive(heartbeat(east, [drained], of=f"us-east/{invented}"))
        assert east.tally.implausible == refused + 1, invented
        assert await east.take(0) == 99
    await east.receiver.receive(heartbeat(east, [drained], of=f"us-east/{east.counts.epochs.new_name()}"))
    assert await east.take(0) == 0


async def test_what_an_agent_had_sent_and_left_marked_is_sent_by_the_next_one(east):
    await east.take(30)
    await east.tick_until(east.is_unmarked)
    await east.take(7)
    await east.counts.make_due(EVERY_SLICE)
    (packed,) = (await east.counts.collect(EVERY_SLICE)).cells
    assert packed.number == 1
    await east.sender.stop()  # it never hears that anybody has it
    east.peers.told.clear()
    east.sender = Sender(
        "us-east", CountStore(east.store, "next", b"of us-east"), east.peers, east, lambda: east.index, lambda: 1,
        east.receiver, east.tally,
    )  # fmt: skip

    async def is_sent():
        return any(cell.taken == 37 for counts in east.peers.told.get("eu-west", ()) for cell in counts.cells)

    await east.tick_until(is_sent)
    await east.tick_until(east.is_unmarked)


async def test_nothing_is_said_to_be_known_that_waits(east):
    await east.take(64)
    await east.tick_until(east.is_unmarked)
    slice = sum(b"{acme}1") % SLICES

    async def is_quiet():
        return all(not one.needs_everything for one in east.sender.sessions.values()) and await east.is_unmarked()

    await east.tick_until(is_quiet)
    east.peers.told.clear()
    await east.take(1)  # little news: it waits
    taken_us = east.now_us()

    async def is_sent():
        return any(counts.cells for counts in east.peers.told.get("eu-west", ()))

    await east.tick_until(is_sent)
    before = [dict(counts.complete) for counts in takewhile(lambda one: not one.cells, east.peers.told["eu-west"])]
    assert before, "signs of life"
    assert all(complete[slice] <= taken_us for complete in before)


async def test_who_lets_too_much_come_together_is_sent_everything_once_it_answers(east, monkeypatch):
    monkeypatch.setattr(peer_session, "MAX_WAITING", 3)
    east.meet("eu-west", "ap-south")
    await east.take(1)
    await east.tick_until(east.is_unmarked)
    answer = asyncio.Event()
    east.peers.slow["ap-south"] = answer
    keys = [b"{k%d}1" % number for number in range(10)]
    for key in keys:
        await east.take(20, key)
        await east.sender.tick()
        await asyncio.sleep(0.01)

    async def knows_first(name="eu-west"):
        told = {cell.key for counts in east.peers.told[name] for cell in counts.cells}
        return told.issuperset(keys)

    await east.tick_until(knows_first)
    assert not await knows_first("ap-south")
    await east.tick_until(east.is_unmarked)
    del east.peers.slow["ap-south"]
    answer.set()

    async def knows_too():
        return await knows_first("ap-south")

    await east.tick_until(knows_too)


async def test_whoever_sends_next_knows_that_a_peer_missed_something_while_it_was_away(east):
    await east.tick_until(lambda: east.is_noted("eu-west", EVERY_SLICE))
    east.peers.away.add("eu-west")

    async def is_away():
        if not await east.marks():
            await east.take(1)  # there is always something that it misses
        return east.sender.sessions["eu-west"].is_away

    await east.tick_until(is_away)
    await east.tick_until(east.is_unmarked)
    assert await east.counts.epochs.sent_everything("eu-west", EVERY_SLICE) is None


@pytest.mark.parametrize("is_noted", [True, False])
async def test_who_takes_slices_over_sends_everything_to_a_peer_that_missed_something_in_them(east, is_noted):
    east.live_agents = 2
    await east.tick_until(lambda: east.is_noted("eu-west", OWN))
    await east.tick_until(lambda: east.is_noted("ap-south", OWN))
    assert east.sender.slices == len(OWN)
    for peer in ("eu-west", "ap-south") if is_noted else ("ap-south",):
        await east.counts.epochs.note_sent_everything(peer, OTHERS, "first")  # by the agent that holds the others
    sweeps, east.live_agents = east.tally.sweeps, 1

    async def has_taken_over():
        return east.sender.slices == SLICES and await east.is_noted("eu-west", EVERY_SLICE)

    await east.tick_until(has_taken_over)
    assert (east.tally.sweeps == sweeps) == is_noted


async def test_who_takes_slices_over_in_the_middle_of_a_sweep_begins_it_anew(east, monkeypatch):
    monkeypatch.setattr(anti_entropy, "PAGES_A_TURN", 1)
    monkeypatch.setattr(count_store, "SCANNED_A_CALL", 5)
    keys = await east.take_many()
    await east.tick_until(east.is_unmarked)
    east.live_agents = 2
    await east.sender.tick()
    assert east.sender.slices == len(OWN)
    east.peers.lives["eu-west"] = "second"

    async def is_halfway():
        told = {cell.key for counts in east.peers.told["eu-west"] for cell in counts.cells}
        return east.sender.sessions["eu-west"].needs_everything and len(told) > len(keys) // 5

    east.peers.told["eu-west"].clear()
    await east.tick_until(is_halfway)
    east.live_agents = 1

    async def is_sent_everything():
        return not east.sender.sessions["eu-west"].needs_everything and await east.is_unmarked()

    await east.tick_until(is_sent_everything)
    assert {cell.key for counts in east.peers.told["eu-west"] for cell in counts.cells} == set(keys)


async def test_a_peer_that_comes_back_while_a_page_is_read_is_sent_the_pages_before_it(east, monkeypatch):
    monkeypatch.setattr(count_store, "SCANNED_A_CALL", 5)
    keys = await east.take_many()
    await east.tick_until(east.is_unmarked)
    await east.tick_until(lambda: east.is_noted("ap-south", EVERY_SLICE))
    sweep, pages = east.counts.sweep, []

    async def peer_comes_back(*arguments, **options):
        page = await sweep(*arguments, **options)
        pages.append(page)
        if len(pages) == 6:
            east.peers.told["ap-south"].clear()
            east.sender.sessions["ap-south"].resend_everything()
            east.sender.anti_entropy.begin()
        return page

    monkeypatch.setattr(east.counts, "sweep", peer_comes_back)
    east.sender.anti_entropy.begin()

    async def is_sent_everything():
        return len(pages) > 6 and not east.sender.anti_entropy.is_under_way and await east.is_unmarked()

    await east.tick_until(is_sent_everything)
    assert not east.sender.sessions["ap-south"].needs_everything
    assert {cell.key for counts in east.peers.told["ap-south"] for cell in counts.cells} == set(keys)


async def test_a_peer_that_left_the_last_two_regions_is_sent_everything_when_it_is_back(east):
    east.meet("eu-west")
    await east.tick_until(lambda: east.is_noted("eu-west", EVERY_SLICE))
    east.meet()
    await east.sender.tick()
    assert await east.counts.epochs.sent_everything("eu-west", EVERY_SLICE) is None


async def test_a_peer_was_sent_everything_once_it_has_the_counts_of_ended_epochs(east):
    """Nothing in the store tells the next sender which of them wait."""
    await east.tick_until(lambda: east.is_noted("eu-west", EVERY_SLICE))
    answer = east.peers.slow["eu-west"] = asyncio.Event()
    lost = Cell(b"{acme}1", east.now_us() // YEAR_US, 3)
    await east.receiver.receive(heartbeat(east, [lost], of=f"us-east/{east.counts.epochs.new_name()}"))

    async def is_not_noted():
        return await east.counts.epochs.sent_everything("eu-west", EVERY_SLICE) is None

    await east.tick_until(is_not_noted)
    del east.peers.slow["eu-west"]
    answer.set()
    await east.tick_until(lambda: east.is_noted("eu-west", EVERY_SLICE))
    assert any(lost in counts.cells for counts in east.peers.told["eu-west"])


async def test_that_a_peer_lacks_something_is_noted_by_the_next_tick_where_the_store_failed(east, monkeypatch):
    await east.tick_until(lambda: east.is_noted("eu-west", EVERY_SLICE))
    note = east.counts.epochs.note_sent_everything

    async def fail_once(*_: object) -> None:
        monkeypatch.setattr(east.counts.epochs, "note_sent_everything", note)
        raise StoreUnavailableError("the store fails over")

    monkeypatch.setattr(east.counts.epochs, "note_sent_everything", fail_once)
    east.sender.sessions["eu-west"].resend_everything()
    with pytest.raises(StoreUnavailableError):
        await east.sender.tick()
    await east.sender.tick()
    assert await east.counts.epochs.sent_everything("eu-west", EVERY_SLICE) is None


async def test_slices_whose_taking_over_failed_are_taken_over_by_the_next_tick(east, monkeypatch):
    east.live_agents = 2
    await east.tick_until(east.is_unmarked)
    make_due, tried = east.counts.make_due, []

    async def fail_once(slices: Sequence[int]) -> None:
        tried.append(slices)
        if len(tried) == 1:
            raise StoreUnavailableError("the store fails over")
        await make_due(slices)

    monkeypatch.setattr(east.counts, "make_due", fail_once)
    east.live_agents = 1
    with pytest.raises(StoreUnavailableError):
        await east.sender.tick()
    await east.sender.tick()
    assert len(tried[0]) == SLICES // 2
    assert tried == [tried[0]] * 2
    assert east.sender.slices == SLICES
