"""Micro-batches on real servers: fewer calls than decisions, in order, exact, and never broken by a neighbour."""

import asyncio

from data_plane.store.ports import CallbackCheck
from tests.integration.redis.conftest import OpenStore
from tests.integration.redis.load import Ask, ask, rule


async def script_calls(store) -> int:
    """How many script calls the server ran, of all clients."""
    stats = await store.execute("INFO", "commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_decisions_of_one_tick_share_one_script_call(store_url: str, open_store: OpenStore) -> None:
    store = await open_store(store_url)
    before = await script_calls(store)
    asks = [Ask(store, (b"{c%d}" % i,), (rule(5),)) for i in range(100)]
    for one in asks:
        await one.answered.wait()
    assert {one.verdict for one in asks} == {"allowed"}
    assert await script_calls(store) - before == 1
    assert store.stats.batches == 1
    assert store.stats.decisions == 100


async def test_a_lone_decision_is_sent_at_once(store_url: str, open_store: OpenStore) -> None:
    store = await open_store(store_url)
    for expected in (4, 3, 2):
        one = await ask(store, (b"{c}",), (rule(5),))
        assert one.answers[0][0].remaining == expected
    assert store.stats.batches == 3


async def test_at_most_two_calls_are_in_flight_and_the_rest_rides_in_the_next(
    store_url: str, open_store: OpenStore
) -> None:
    store = await open_store(store_url)
    asks = []
    for _ in range(20):
        asks += [Ask(store, (b"{c}",), (rule(1000),)) for _ in range(10)]
        await asyncio.sleep(0)
    for one in asks:
        await one.answered.wait()
    assert store.stats.decisions == 200
    assert store.stats.batches < 20


async def test_few_wait_for_the_call_in_flight_and_many_are_worth_another(
    store_url: str, open_store: OpenStore
) -> None:
    store = await open_store(store_url, worth_a_second_call=4)
    shard = store.topology.shard
    asks = [Ask(store, (b"{c}",), (rule(100),))]
    while not shard.in_flight:
        await asyncio.sleep(0)
    # From here to the end of the block the loop does not turn: the call stays in flight.
    asks += [Ask(store, (b"{c}",), (rule(100),)) for _ in range(3)]
    assert not shard.flush_scheduled
    asks.append(Ask(store, (b"{c}",), (rule(100),)))
    assert shard.flush_scheduled
    for one in asks:
        await asyncio.wait_for(one.answered.wait(), 5)
    assert [one.answers[0][0].remaining for one in asks] == [99, 98, 97, 96, 95]
    assert store.stats.batches == 2
    few = [Ask(store, (b"{d}",), (rule(100),)) for _ in range(2)]
    for one in few:
        await asyncio.wait_for(one.answered.wait(), 5)
    assert store.stats.batches == 3


async def test_a_batch_has_at_most_the_configured_decisions_and_limits(store_url: str, open_store: OpenStore) -> None:
    store = await open_store(store_url, max_batch_decisions=8, max_batch_limits=12)
    asks = [Ask(store, (b"{c}a", b"{c}b", b"{c}d"), (rule(100),) * 3) for _ in range(40)]
    for one in asks:
        await one.answered.wait()
    assert store.stats.batches == 10
    assert store.stats.largest_batch == 4


async def test_two_hundred_at_once_against_a_hundred_let_exactly_a_hundred_pass_in_order(
    store_url: str, open_store: OpenStore
) -> None:
    stores = [await open_store(store_url) for _ in range(2)]
    asks = [Ask(stores[i % 2], (b"{c}",), (rule(100),)) for i in range(200)]
    for one in asks:
        await one.answered.wait()
    for of_one_store in (asks[::2], asks[1::2]):
        verdicts = [one.verdict for one in of_one_store]
        assert verdicts == sorted(verdicts)
    assert sum(one.verdict == "allowed" for one in asks) == 100
    assert sum(one.verdict == "denied" for one in asks) == 100


async def test_a_callback_that_raises_harms_no_neighbour(store_url: str, open_store: OpenStore) -> None:
    store = await open_store(store_url)

    def broken(answer: object, now_us: int) -> None:
        raise RuntimeError("the client hung up")

    first = Ask(store, (b"{c}",), (rule(5),))
    store.submit(CallbackCheck((b"{c}",), (rule(5),), 1, broken))
    store.submit(CallbackCheck((b"{c}",), (rule(5),), 1, broken))
    last = Ask(store, (b"{c}",), (rule(5),))
    await asyncio.wait_for(last.answered.wait(), 5)
    assert first.verdict == "allowed"
    assert last.answers[0][0].remaining == 1
    assert store.stats.callback_errors == 2


async def test_one_that_cannot_be_encoded_harms_no_neighbour(store_url: str, open_store: OpenStore) -> None:
    store = await open_store(store_url)
    asks = [Ask(store, (b"{c}",), (rule(5),), cost) for cost in (1, "one", 1)]  # type: ignore[arg-type]  # the point
    for one in asks:
        await asyncio.wait_for(one.answered.wait(), 5)
    assert [one.verdict for one in asks] == ["allowed", "script_error", "allowed"]


async def test_more_than_the_queue_holds_is_refused_at_once(store_url: str, open_store: OpenStore) -> None:
    store = await open_store(store_url, max_pending=10)
    asks = [Ask(store, (b"{c}",), (rule(100),)) for _ in range(25)]
    for one in asks:
        await asyncio.wait_for(one.answered.wait(), 5)
    assert [one.verdict for one in asks] == ["allowed"] * 10 + ["overloaded"] * 15
    assert store.stats.errors["overloaded"] == 15


async def test_scripts_flushed_under_way_are_loaded_again_and_nothing_counts_twice(
    store_url: str, open_store: OpenStore
) -> None:
    store = await open_store(store_url)
    for expected in range(9, 4, -1):
        await store.execute("SCRIPT", "FLUSH")
        one = await ask(store, (b"{c}",), (rule(10),))
        assert one.answers[0][0].remaining == expected
    assert store.stats.script_loads == 6


async def test_closing_finishes_what_is_in_flight_and_refuses_what_comes_after(
    store_url: str, open_store: OpenStore
) -> None:
    store = await open_store(store_url)
    asks = [Ask(store, (b"{c}",), (rule(100),)) for _ in range(5)]
    await store.close()
    assert [one.verdict for one in asks] == ["allowed"] * 5
    late = await ask(store, (b"{c}",), (rule(100),))
    assert late.verdict == "closed"
