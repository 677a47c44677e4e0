"""Faults on real servers: every decision gets exactly one answer in bounded time, and service comes back by itself."""

import asyncio
import os
import signal
import struct
from collections.abc import Callable

import pytest

import redis
from data_plane.store.redis.calls import Call
from data_plane.store.redis.circuit import Prober
from data_plane.store.redis.server import StoreMisconfiguredError
from data_plane.store.redis.store import RedisCounterStore
from testing.stores import redis_binary
from tests.integration.redis.conftest import OpenStore
from tests.integration.redis.load import Ask, Load, ask, rule
from tidegate.stack.child import wait_until_ready
from tidegate.stack.store import StoreServer

StartStore = Callable[..., StoreServer]
DEADLINE_MS = 50.0
ANSWERED_MS = DEADLINE_MS * 1.5
"""Deadlines are looked at every half of one."""


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, start_store: StartStore) -> StoreServer:
    """A server of the test's own, to break."""
    return start_store() if request.param == "valkey" else start_store(name="Redis", binary=redis_binary())


def restart(server: StoreServer) -> None:
    server.child.start()
    wait_until_ready(server.child, server.is_ready, timeout_s=10)


async def test_a_killed_and_restarted_server_costs_no_answer(server: StoreServer, open_store: OpenStore) -> None:
    store = await open_store(server.url, deadline_ms=DEADLINE_MS, backoff_cap_ms=100, stall_reconnect_ms=10_000)
    load = Load(store)
    await load.verdicts(100, "allowed")
    server.child.kill()
    await load.verdicts(100, "circuit_open")
    assert store.status().shards[0].circuit == "open"
    restart(server)
    await load.verdicts(100, "allowed")
    verdicts = await load.stop()
    assert set(verdicts) <= {"allowed", "circuit_open", "connection_lost", "timeout", "loading"}
    assert load.slowest_ms() < ANSWERED_MS
    assert store.status().usable
    assert store.stats.connects == 2


async def test_a_paused_server_opens_the_circuit_and_late_replies_answer_nobody_else(
    server: StoreServer, open_store: OpenStore
) -> None:
    store = await open_store(server.url, deadline_ms=DEADLINE_MS, backoff_cap_ms=100, stall_reconnect_ms=10_000)
    load = Load(store)
    await load.verdicts(100, "allowed")
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        await load.verdicts(100, "circuit_open")
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    await load.verdicts(100, "allowed")
    verdicts = await load.stop()
    assert set(verdicts) == {"allowed", "circuit_open", "timeout"}
    assert load.slowest_ms() < ANSWERED_MS
    assert store.stats.late_replies > 0
    assert store.stats.connects == 1
    for expected in (1, 0):
        assert (await ask(store, (b"{in step}",), (rule(2),))).answers[0][0].remaining == expected


async def test_a_probe_that_is_answered_with_nonsense_lets_the_next_decisions_through(
    server: StoreServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(server.url, deadline_ms=DEADLINE_MS, backoff_cap_ms=100, stall_reconnect_ms=10_000)
    load = Load(store)
    await load.verdicts(100, "allowed")

    probed = asyncio.Event()

    def unreadable(*_: object) -> None:
        if store.status().shards[0].circuit == "half_open":
            probed.set()
        raise struct.error

    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        await load.verdicts(100, "circuit_open")
        monkeypatch.setattr(Call, "figures_in", unreadable)
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    async with asyncio.timeout(10):
        await probed.wait()
    monkeypatch.undo()
    await load.verdicts(100, "allowed")
    await load.stop()


async def test_what_a_late_decision_took_is_given_back(server: StoreServer, open_store: OpenStore) -> None:
    """The caller was answered without the store meanwhile: were it counted too, it would count twice."""
    store = await open_store(server.url, deadline_ms=DEADLINE_MS, stall_reconnect_ms=10_000)
    ten, two = rule(10), rule(2)
    assert (await ask(store, (b"{a}1", b"{a}2"), (ten, two))).verdict == "allowed"
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        late = await asyncio.gather(*(ask(store, (b"{a}1", b"{a}2"), (ten, two)) for _ in range(3)))
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    assert {one.verdict for one in late} == {"timeout"}
    async with asyncio.timeout(10):
        while store.stats.given_back < 1:  # the second limit had one left: one of the three passed
            await asyncio.sleep(0.01)
    await store.until_given_back()
    async with asyncio.timeout(10):
        while (found := await ask(store, (b"{a}1", b"{a}2"), (ten, two), cost=0)).verdict != "allowed":
            await asyncio.sleep(0.01)
    assert [answer.remaining for answer in found.answers[0]] == [9, 1]


async def test_a_server_that_stays_paused_is_left_and_found_again(server: StoreServer, open_store: OpenStore) -> None:
    store = await open_store(
        server.url, deadline_ms=DEADLINE_MS, backoff_cap_ms=100, stall_reconnect_ms=200, connect_timeout_ms=200
    )
    load = Load(store)
    await load.verdicts(50, "allowed")
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        await load.verdicts(50, "circuit_open")
        async with asyncio.timeout(5):
            while not store.stats.connect_failures:
                await asyncio.sleep(0.01)
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    await load.verdicts(100, "allowed")
    verdicts = await load.stop()
    assert set(verdicts) <= {"allowed", "circuit_open", "timeout", "connection_lost"}
    assert store.stats.connects == 2


async def test_scripts_flushed_under_load_cost_no_answer(server: StoreServer, open_store: OpenStore) -> None:
    store = await open_store(server.url)
    load = Load(store)
    for _ in range(5):
        await load.verdicts(30, "allowed")
        await store.execute("SCRIPT", "FLUSH")
    await load.verdicts(30, "allowed")
    assert set(await load.stop()) == {"allowed"}
    assert store.stats.script_loads > 5


async def test_a_full_server_is_a_failure_without_a_reconnect(server: StoreServer, open_store: OpenStore) -> None:
    store = await open_store(server.url, backoff_cap_ms=50)
    assert (await ask(store, (b"{c}",), (rule(5),))).verdict == "allowed"
    await store.execute("CONFIG", "SET", "maxmemory", "100kb")
    load = Load(store)
    await load.verdicts(20, "out_of_memory")
    await load.verdicts(20, "circuit_open")
    await store.execute("CONFIG", "SET", "maxmemory", "0")
    await load.verdicts(20, "allowed")
    assert set(await load.stop()) == {"allowed", "circuit_open", "out_of_memory"}
    assert store.stats.connects == 1


async def test_failures_among_more_answers_do_not_open_the_circuit(server: StoreServer, open_store: OpenStore) -> None:
    store = await open_store(server.url, deadline_ms=1_000)
    with redis.Redis.from_url(server.url) as admin:
        for _ in range(8):
            admin.config_set("maxmemory", "100kb")
            assert (await ask(store, (b"{c}",), (rule(99),))).verdict == "out_of_memory"
            admin.config_set("maxmemory", "0")
            for _ in range(2):
                assert (await ask(store, (b"{c}",), (rule(99),))).verdict == "allowed"
    assert store.status().shards[0].circuit_opened == 0


async def test_a_server_that_became_a_replica_is_left_for_whoever_is_master(
    server: StoreServer, open_store: OpenStore
) -> None:
    store = await open_store(server.url, backoff_cap_ms=50)
    with redis.Redis.from_url(server.url) as admin:
        admin.replicaof("127.0.0.1", "1")
        load = Load(store)
        await load.verdicts(1, "read_only")
        await load.verdicts(20, "circuit_open")
        admin.replicaof("NO", "ONE")
    await load.verdicts(20, "allowed")
    assert set(await load.stop()) <= {"allowed", "circuit_open", "read_only", "connection_lost"}
    assert store.stats.connects > 1


async def decided_again(store: RedisCounterStore) -> None:
    """Wait until it is usable, though nobody asks it for anything."""
    async with asyncio.timeout(5):
        while not store.status().usable:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("trouble", ["hung", "full", "replica"])
async def test_a_store_that_is_well_again_is_seen_to_be_so_without_a_decision(
    server: StoreServer, open_store: OpenStore, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_store(server.url, backoff_cap_ms=50, deadline_ms=DEADLINE_MS)
    with redis.Redis.from_url(server.url) as admin:
        if trouble == "hung":
            os.kill(server.child.pid, signal.SIGSTOP)
        elif trouble == "full":
            admin.config_set("maxmemory", "100kb")
        else:
            admin.replicaof("127.0.0.1", "1")
        # so seldom that no window has the failures that open the circuit
        for _ in range(6):
            await ask(store, (b"{c}",), (rule(9),))
            await asyncio.sleep(0.04)
        reasons = {"hung": "timeout", "full": "out_of_memory", "replica": "read_only"}
        async with asyncio.timeout(5):
            while store.status().shards[0].problem != reasons[trouble]:
                await asyncio.sleep(0.01)
        assert not store.status().usable
        probes = store.stats.errors[reasons[trouble]]
        if trouble == "full":  # it is asked on, and does not look well before it is
            async with asyncio.timeout(5):
                while store.stats.errors[reasons[trouble]] < probes + 3:
                    assert not store.status().usable
                    await asyncio.sleep(0.005)
        if trouble == "hung":
            os.kill(server.child.pid, signal.SIGCONT)
        elif trouble == "full":
            admin.config_set("maxmemory", "0")
        else:
            admin.replicaof("NO", "ONE")
    await decided_again(store)
    assert store.status().shards[0].problem is None
    said = [record.getMessage() for record in caplog.records if "decide" in record.getMessage()]
    assert said[0] == f"the store does not decide ({reasons[trouble]}): decisions are made without it"
    assert said[1].startswith("the store decides again, after ")
    await store.until_given_back()
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_a_server_that_is_loading_is_waited_for(start_store: StartStore, open_store: OpenStore) -> None:
    server = start_store(durable=True, settings={"enable-debug-command": "local"})
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("DEBUG", "POPULATE", 200_000, "key", 10)
        admin.config_set("appendonly", "no")
        admin.config_set("save", "3600 1")
        admin.save()
    store = await open_store(server.url, backoff_cap_ms=50, deadline_ms=DEADLINE_MS)
    load = Load(store)
    await load.verdicts(20, "allowed")
    server.child.kill()
    await load.verdicts(20, "circuit_open")
    server.child.start()
    await load.verdicts(20, "allowed", timeout_s=20)
    verdicts = await load.stop()
    assert set(verdicts) <= {"allowed", "circuit_open", "connection_lost", "timeout", "loading"}


async def test_a_server_that_is_away_at_the_start_is_found_later(server: StoreServer, open_store: OpenStore) -> None:
    server.child.kill()
    store = await open_store(server.url, backoff_cap_ms=50)
    assert (await ask(store, (b"{c}",), (rule(5),))).verdict == "circuit_open"
    assert store.status().shards[0].problem == "connection_lost"
    assert not store.status().usable
    restart(server)
    load = Load(store)
    await load.verdicts(20, "allowed")
    await load.stop()
    assert store.status().usable


async def test_a_server_that_evicts_is_refused_at_the_start(server: StoreServer, open_store: OpenStore) -> None:
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreMisconfiguredError, match="noeviction"):
        await open_store(server.url)


async def test_a_connection_that_is_cut_fails_what_is_in_flight_at_once(
    server: StoreServer, open_store: OpenStore
) -> None:
    store = await open_store(server.url, deadline_ms=5_000)
    os.kill(server.child.pid, signal.SIGSTOP)
    asks = [Ask(store, (b"{c}",), (rule(5),)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    server.child.kill()
    for one in asks:
        await asyncio.wait_for(one.answered.wait(), 2)
    assert [one.verdict for one in asks] == ["connection_lost"] * 3


async def test_a_probe_that_cannot_be_sent_does_not_keep_the_circuit_open(
    server: StoreServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prober, "wake", lambda _: None)  # a decision is to be the probe
    store = await open_store(server.url, backoff_cap_ms=20)
    shard = store.status().shards[0]
    server.child.kill()
    async with asyncio.timeout(5):
        while store.status().shards[0].circuit == "closed":
            await ask(store, (b"{c}",), (rule(9),))
    restart(server)
    async with asyncio.timeout(5):
        while (await ask(store, (b"{c}",), (rule(9),), "one")).verdict != "script_error":  # type: ignore[arg-type]
            await asyncio.sleep(0.005)
    assert store.status().shards[0].circuit == "open"
    load = Load(store)
    await load.verdicts(10, "allowed")
    await load.stop()
    assert store.status().shards[0].server.run_id != shard.server.run_id
