"""A real Cluster of three masters: routing, decisions over several slots, and a slot that moves under load."""

import asyncio
import os
import signal
from pathlib import Path
from secrets import token_bytes

import msgspec
import pytest

import redis
from data_plane.holds.redis_holds import RedisHoldStore
from data_plane.holds.tokens import Hold
from data_plane.metrics.families import of_store
from data_plane.store.ports import StoreUnavailableError
from redis.crc import key_slot
from testing.node import node_client
from testing.node import rule as node_rule
from testing.stores import StartStore, redis_binary
from tests.integration.redis.clusters import SLOTS, SlotMove, start_cluster
from tests.integration.redis.conftest import OpenStore
from tests.integration.redis.load import Ask, ask, rule
from tidegate.contract.config import Client, Plan
from tidegate.stack.store import StoreServer

Masters = list[StoreServer]
SCOPES = (1, "client"), (2, "ip")


@pytest.fixture(scope="module", params=["valkey", "redis"])
def masters(request: pytest.FixtureRequest, start_module_store: StartStore) -> Masters:
    """Three masters; node ``i`` has the ``i``-th third of the slots. All share one password."""
    binary: Path | None = None if request.param == "valkey" else redis_binary()
    return start_cluster(start_module_store, request.param, binary)


def key_on(master: int, name: str) -> bytes:
    """A key whose slot the ``master``-th third holds, other for each name."""
    for number in range(10_000):
        key = b"{%s%d}" % (name.encode(), number)
        if key_slot(key) * 3 // SLOTS == master:
            return key
    raise AssertionError("unreachable")


async def open_cluster(open_store: OpenStore, masters: Masters, **settings: object):
    return await open_store(masters[0].url, shape="cluster", **settings)


def circuits_opened(store) -> float:
    """What the metric says of it."""
    (family,) = [one for one in of_store(store) if one.name == "tidegate_store_circuit_opened"]
    return family.samples[0].value


async def test_decisions_reach_the_masters_of_their_slots_exactly(masters: Masters, open_store: OpenStore) -> None:
    store = await open_cluster(open_store, masters)
    subjects = [key_on(i % 3, f"exact{i}") for i in range(30)]
    asks = [Ask(store, (subject,), (rule(4),)) for _ in range(10) for subject in subjects]
    for one in asks:
        await one.answered.wait()
    assert sum(one.verdict == "allowed" for one in asks) == 30 * 4
    assert sum(one.verdict == "denied" for one in asks) == 30 * 6
    assert store.stats.batches < len(asks)
    assert store.status().usable
    assert len(store.status().shards) == 3


async def test_limits_in_several_slots_are_all_or_nothing(masters: Masters, open_store: OpenStore) -> None:
    store = await open_cluster(open_store, masters)
    keys = [key_on(i, "all") for i in range(3)]
    limits = (rule(20), rule(10), rule(30))
    verdicts = []
    for _ in range(15):
        one = await ask(store, keys, limits)
        verdicts.append(one.verdict)
        await store.until_given_back()
    assert verdicts == ["allowed"] * 10 + ["denied"] * 5
    assert [outcome.remaining for outcome in one.answers[0]] == [10, 0, 20]
    left = [
        (await ask(store, (key,), (limit,), 0)).answers[0][0].remaining for key, limit in zip(keys, limits, strict=True)
    ]
    assert left == [10, 0, 20]
    assert store.stats.given_back == 10
    assert store.stats.give_back_failures == 0


async def test_a_reservation_goes_back_to_each_slot_as_of_its_own_servers_clock(
    masters: Masters, tmp_path: Path
) -> None:
    limits = [node_rule(at, f"by-{scope}", 100, scope=scope, algorithm="sliding_log") for at, scope in SCOPES]
    values = [Plan(plan="p", limits=tuple(limits)), Client(client="acme", plan="p")]
    url, caller = masters[0].url, {"client": "acme", "ip": "203.0.113.9"}
    async with node_client(tmp_path, url, values, redis_shape="cluster", redis_deadline_ms=100) as node:
        held = (await node.post("/v1/reservations", json={**caller, "cost": 10})).json()
        settlement = {"reservation": held["reservation"], "cost": 4}
        assert (await node.post("/v1/reservations/settle", json=settlement)).json()["returned"] == 6
        seen = (await node.post("/v1/check", json={**caller, "cost": 0, "explain": True})).json()["limits"]
        assert [one["remaining"] for one in seen] == [96, 96]


async def test_a_slot_that_moves_under_load_loses_no_answer_and_admits_not_one_too_many(
    masters: Masters, open_store: OpenStore
) -> None:
    store = await open_cluster(open_store, masters, deadline_ms=2_000)  # a starved master is no fault
    subject = key_on(0, "moving")
    move = SlotMove(masters[0], masters[1], key_slot(subject))
    asks: list[Ask] = []
    stopping = asyncio.Event()

    async def press() -> None:
        while not stopping.is_set() and len(asks) < 50_000:
            asks.extend(Ask(store, (subject,), (rule(2000),)) for _ in range(3))
            await asyncio.sleep(0.001)

    async def more(count: int) -> None:
        seen = len(asks)
        async with asyncio.timeout(10):
            while len(asks) < seen + count:
                await asyncio.sleep(0.002)

    pressing = asyncio.create_task(press())
    await more(100)
    move.begin()
    await more(100)
    moved = move.move_keys()
    await more(100)
    move.end()
    await more(2500)
    stopping.set()
    await pressing
    for one in asks:
        await asyncio.wait_for(one.answered.wait(), 5)
    move.close()
    verdicts = [one.verdict for one in asks]

    assert moved >= 1
    assert {len(one.answers) for one in asks} == {1}
    assert verdicts.count("allowed") == 2000
    assert set(verdicts) == {"allowed", "denied"}
    assert store.stats.redirects > 0


async def test_a_slot_on_the_move_holds_up_only_what_needs_keys_on_both_sides(
    masters: Masters, open_store: OpenStore
) -> None:
    store = await open_cluster(open_store, masters)
    subject = key_on(2, "two sided")
    other = subject + b"other"
    await ask(store, (subject,), (rule(9),))
    move = SlotMove(masters[2], masters[0], key_slot(subject))
    move.begin()
    try:
        assert (await ask(store, (subject, other), (rule(9), rule(9)))).verdict == "slot_migrating"
        assert (await ask(store, (subject,), (rule(9),))).answers[0][0].remaining == 7
        assert (await ask(store, (other,), (rule(9),))).answers[0][0].remaining == 8
        assert store.status().usable
    finally:
        move.move_keys()
        move.end()
        move.close()
    both = await ask(store, (subject, other), (rule(9), rule(9)))
    assert [outcome.remaining for outcome in both.answers[0]] == [6, 7]


async def test_a_decision_that_was_sent_on_has_its_deadline_there_too(masters: Masters, open_store: OpenStore) -> None:
    store = await open_cluster(open_store, masters)
    subject = key_on(2, "sent on")
    move = SlotMove(masters[2], masters[0], key_slot(subject))
    move.begin()
    os.kill(masters[0].child.pid, signal.SIGSTOP)
    try:
        assert (await ask(store, (subject,), (rule(9),))).verdict == "timeout"
    finally:
        os.kill(masters[0].child.pid, signal.SIGCONT)
        move.end()
        move.close()
    assert store.stats.redirects == 1


@pytest.mark.parametrize("half", ["NODE", "MIGRATING"])
async def test_a_decision_that_two_masters_send_to_each_other_is_given_up(
    masters: Masters, open_store: OpenStore, half: str
) -> None:
    """Who moves a slot tells the target first; else, and until the target is told too, each names the other."""
    store = await open_cluster(open_store, masters)
    subject, other = key_on(2, "to and fro"), key_on(2, "at home")
    slot = key_slot(subject)
    with redis.Redis.from_url(masters[2].url) as source, redis.Redis.from_url(masters[0].url) as target:
        source.execute_command("CLUSTER", "SETSLOT", slot, half, target.execute_command("CLUSTER", "MYID"))
        try:
            assert (await ask(store, (subject,), (rule(9),))).verdict == "redirected"
            assert (await ask(store, (other,), (rule(9),))).verdict == "allowed"
        finally:
            source.execute_command("CLUSTER", "SETSLOT", slot, "NODE", source.execute_command("CLUSTER", "MYID"))
    assert store.status().usable


async def test_a_charge_that_reached_one_slot_is_ended_by_the_next_try(masters: Masters, open_store: OpenStore) -> None:
    store = await open_cluster(open_store, masters)
    keys = [key_on(i, "held") for i in range(3)]
    limits = (rule(100), rule(100), rule(100))
    assert (await ask(store, keys, limits, 20)).verdict == "allowed"
    hold = Hold(
        "reservation", token_bytes(12), 20, 1, 0, 0, tuple(keys),
        limits,
    )  # fmt: skip
    first = msgspec.structs.replace(hold, keys=hold.keys[:1], params=hold.params[:1])
    holds = RedisHoldStore(store)
    assert await holds.replace(first, 30, 60_000, logs_over=False) is True
    assert await holds.replace(hold, 30, 60_000, logs_over=False) is True
    assert await holds.replace(hold, 30, 60_000, logs_over=False) is False
    assert [outcome.remaining for outcome in (await ask(store, keys, limits, 0)).answers[0]] == [70, 70, 70]


async def test_a_dead_master_costs_only_its_own_slots(masters: Masters, open_store: OpenStore) -> None:
    """Last in this file: there is no replica, so the master stays dead."""
    store = await open_cluster(open_store, masters, deadline_ms=50, backoff_cap_ms=100, connect_timeout_ms=1_000)
    with redis.Redis.from_url(masters[0].url) as admin:
        admin.config_set("cluster-require-full-coverage", "no")
    with redis.Redis.from_url(masters[1].url) as admin:
        admin.config_set("cluster-require-full-coverage", "no")
    alive, dead = key_on(0, "alive"), key_on(2, "dead")
    assert (await ask(store, (alive, dead), (rule(9), rule(9)))).verdict == "allowed"
    with redis.Redis.from_url(masters[2].url) as admin:
        dead_id = admin.execute_command("CLUSTER", "MYID")
    masters[2].child.kill()
    verdicts = [(await ask(store, (alive, dead), (rule(9), rule(9)))).verdict for _ in range(20)]
    await store.until_given_back()
    assert set(verdicts) <= {"connection_lost", "circuit_open", "timeout"}
    assert store.stats.given_back > 0
    assert (await ask(store, (alive,), (rule(9),))).answers[0][0].remaining == 7
    assert not store.status().usable
    assert [shard.connected for shard in store.status().shards].count(True) == 2
    os.kill(masters[1].child.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(5):
            while (await ask(store, (key_on(1, "paused"),), (rule(9),))).verdict != "circuit_open":
                pass
        async with asyncio.timeout(5):  # by itself redis-py tries eleven times
            with pytest.raises(StoreUnavailableError):
                await store.execute("GET", key_on(1, "paused").decode())
    finally:
        os.kill(masters[1].child.pid, signal.SIGCONT)
    async with asyncio.timeout(10):  # and is asked again, though no decision needs it
        while [shard.circuit for shard in store.status().shards].count("closed") < 2:
            await asyncio.sleep(0.01)
    opened = circuits_opened(store)
    assert opened >= 2
    for master in masters[:2]:
        with redis.Redis.from_url(master.url) as admin:
            admin.execute_command("CLUSTER", "FORGET", dead_id)
    async with asyncio.timeout(10):
        while len(store.status().shards) > 2:
            await ask(store, (dead,), (rule(9),))
    assert circuits_opened(store) >= opened, "a counter never falls"
