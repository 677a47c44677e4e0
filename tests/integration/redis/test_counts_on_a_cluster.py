"""What regions tell each other, on a Cluster: marks lie in every slot, and each node finds what another one marked."""

import asyncio

import msgspec
import pytest

from data_plane.replicate.count_store import CountStore, Mark, PeerCounter
from data_plane.replicate.peer_session import encode_counts
from data_plane.store.packing import encode_rule
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.subjects import limit_of_key
from testing.stores import StartStore, redis_binary
from tests.integration.redis.clusters import start_cluster
from tests.integration.redis.conftest import OpenStore
from tests.integration.redis.load import HOUR_US, ask
from tidegate.contract.counts import SLICES, Cell, Counts
from tidegate.contract.limits import LimitRule

SHARED = encode_rule(
    LimitRule(id=1, name="l", algorithm="fixed_window", limit=100, window_us=HOUR_US, mode="shared"), shared=True
)
KEYS = [b"{client%d}1" % number for number in range(40)]
"""In slots of all three masters."""
ALL = range(SLICES)
HEAD = Counts(region="here", incarnation="1", sent_at=0)


@pytest.fixture(scope="module", params=["valkey", "redis"])
def seed(request: pytest.FixtureRequest, start_module_store: StartStore) -> str:
    """Where a Cluster of three masters is met."""
    binary = None if request.param == "valkey" else redis_binary()
    return start_cluster(start_module_store, request.param, binary)[0].url


@pytest.fixture
async def store(seed: str, open_store: OpenStore) -> RedisCounterStore:
    """A node's way to the Cluster, which is empty."""
    store = await open_store(seed, shape="cluster")
    await store.execute("FLUSHALL")
    return store


async def take(store: RedisCounterStore, keys=KEYS, cost: int = 3) -> None:
    for key in keys:
        assert (await ask(store, (key,), (SHARED,), cost)).verdict == "allowed"


async def collected(counts: CountStore, slices=ALL) -> tuple[list[Cell], list[Mark]]:
    """Everything that is due, or will be; and its marks."""
    cells: list[Cell] = []
    marks: list[Mark] = []
    await counts.make_due(slices)
    while True:
        found = await counts.collect(slices)
        for packed in found.cells:
            cells += msgspec.msgpack.decode(encode_counts(HEAD, [packed.packed], packed.number), type=Counts).cells
            marks += packed.marks
        if found.is_all:
            return cells, marks


async def swept(counts: CountStore, slices=ALL, *, lives: bool = False) -> dict[str, list[Cell]]:
    """Sweep from beginning to end; what peers' lives had counted."""
    said: dict[str, list[Cell]] = {}
    cursor = ""
    while True:
        page = await counts.sweep(cursor, slices, lambda key: limit_of_key(key) == 1, epochs=lives)
        for life, cells in page.epochs.items():
            said.setdefault(life, []).extend(cells)
        cursor = page.cursor
        if not cursor:
            return said


async def test_every_master_s_counters_are_told_and_unmarked(store: RedisCounterStore) -> None:
    counts = CountStore(store, "node")
    assert await counts.hold_slices(SLICES) == list(ALL)
    assert await collected(counts) == ([], [])
    await take(store)
    await counts.hold_slices(SLICES)
    found, marks = await collected(counts)
    assert sorted(one.key for one in found) == sorted(KEYS)
    assert {one.taken for one in found} == {3}
    await counts.unmark(marks, ())
    assert await collected(counts) == ([], [])


async def test_a_sweep_marks_the_counters_of_all_masters_and_ends(store: RedisCounterStore) -> None:
    counts = CountStore(store, "node")
    await take(store)
    await counts.hold_slices(SLICES)
    await counts.unmark((await collected(counts))[1], ())
    await swept(counts)
    await counts.hold_slices(SLICES)
    assert sorted(one.key for one in (await collected(counts))[0]) == sorted(KEYS)


async def test_what_one_node_marked_another_finds_in_its_slices(
    store: RedisCounterStore, seed: str, open_store: OpenStore
) -> None:
    one = CountStore(store, "one")
    other = CountStore(await open_store(seed, shape="cluster"), "other")
    first = second = []
    async with asyncio.timeout(20):  # leases are short: on a busy machine one may be over before the other is taken
        while sorted([*first, *second]) != list(ALL):
            first = await one.hold_slices(SLICES // 2)
            second = await other.hold_slices(SLICES // 2)
    await take(store)
    await one.hold_slices(SLICES // 2)
    seen_by_one = [cell.key for cell in (await collected(one, first))[0]]
    seen_by_other = [cell.key for cell in (await collected(other, second))[0]]
    assert sorted(seen_by_one + seen_by_other) == sorted(KEYS)
    assert seen_by_one
    assert seen_by_other


async def test_a_slot_that_was_empty_is_looked_at_again_once_it_is_marked(store: RedisCounterStore) -> None:
    counts = CountStore(store, "node")
    for _ in range(2):
        await take(store, KEYS[:1])
        await counts.hold_slices(SLICES)
        (found,), marks = await collected(counts)
        assert found.key == KEYS[0]
        await counts.unmark(marks, ())
        for _ in range(3):
            await counts.hold_slices(SLICES)
            assert await collected(counts) == ([], [])
    assert not any([await store.execute("EXISTS", b"tg:marked:%d" % slice) for slice in ALL]), "nothing is listed"


async def test_what_peers_count_is_merged_in_every_slot_and_read_back(store: RedisCounterStore) -> None:
    counts = CountStore(store, "node")
    await take(store)
    await counts.hold_slices(SLICES)
    windows = {one.key: one.window for one in (await collected(counts))[0]}
    told = [PeerCounter(key, SHARED, (Cell(key, windows[key], 7),)) for key in KEYS]
    merging = await counts.merge("west/1", 2, told)
    assert (list(merging.again), merging.over) == ([], 0)
    for key in KEYS:
        assert (await ask(store, (key,), (SHARED,), 0)).answers[0][0].remaining == 90
    lives = await swept(counts, lives=True)
    assert sorted(cell.key for cell in lives["west/1"]) == sorted(KEYS)
    assert {cell.taken for cell in lives["west/1"]} == {7}


async def test_who_is_heard_and_what_was_told_are_kept_for_all_nodes(
    store: RedisCounterStore, seed: str, open_store: OpenStore
) -> None:
    one, other = (
        CountStore(store, "one"),
        CountStore(await open_store(seed, shape="cluster"), "other"),
    )
    assert await one.epochs.current("here", 2, lambda _: True) == await other.epochs.current("here", 2, lambda _: True)
    await one.epochs.note_sent_everything("west", [0, 1], "life")
    assert await other.epochs.sent_everything("west", [0, 1]) == "life"
    assert await other.epochs.sent_everything("west", [1, 2]) is None
    assert (await one.note_received("west", 1, dict.fromkeys(ALL, 0), ["west"])).repeated == 0
    assert (await other.note_received("west", 1, dict.fromkeys(ALL, 0), ["west"])).repeated == SLICES
    assert (await other.note_received("", 0, {}, ["west"])).states["west"].unreachable_since_us == 0
