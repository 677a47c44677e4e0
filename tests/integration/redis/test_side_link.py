"""What is not a decision goes over one connection of a store: every call has its own reply, or one error."""

import asyncio
import os
import signal

import pytest

import redis
from data_plane.store.ports import ScriptCall, StoreUnavailableError
from data_plane.store.redis.client import BLOCK_S
from testing.stores import redis_binary
from tests.integration.redis.test_faults import restart


@pytest.fixture(params=["valkey", "redis"])
def server(request, start_store):
    return start_store() if request.param == "valkey" else start_store(name="Redis", binary=redis_binary())


async def test_calls_of_many_tasks_get_their_own_replies(server, open_store):
    store = await open_store(server.url)
    await asyncio.gather(*(store.execute("SET", f"k{number}", number) for number in range(200)))
    assert [int(value) for value in await store.execute("MGET", *(f"k{number}" for number in range(200)))] == list(
        range(200)
    )
    found = await asyncio.gather(*(store.execute_all([("GET", f"k{n}"), ("PING",)]) for n in range(200)))
    assert [int(value) for value, _ in found] == list(range(200))
    assert await store.execute("HGETALL", "nothing") == {}
    assert isinstance((await store.info())[0]["run_id"], str)


async def test_an_error_is_raised_to_its_caller_alone(server, open_store):
    store = await open_store(server.url)
    await store.execute("SET", "text", "a")
    wrong, right = await asyncio.gather(
        store.execute("INCR", "text"), store.execute("GET", "text"), return_exceptions=True
    )
    assert (type(wrong), wrong.reason, right) == (StoreUnavailableError, "ResponseError", b"a")
    with pytest.raises(StoreUnavailableError, match=r"^ResponseError$"):
        await store.execute_all([("GET", "text"), ("INCR", "text")])
    await store.execute("ACL", "SETUSER", "default", "-flushall")
    with pytest.raises(StoreUnavailableError, match=r"^NoPermissionError$"):
        await store.execute("FLUSHALL")
    scripts = [ScriptCall("return {KEYS[1], ARGV[1]}", [b"k"], [number]) for number in range(3)]
    assert await store.execute_all(scripts) == [[b"k", b"%d" % number] for number in range(3)]


async def test_a_connection_that_broke_is_made_again(server, open_store):
    store = await open_store(server.url)
    before = await store.execute("CLIENT", "ID")
    await store.execute("CLIENT", "KILL", "ID", before, "SKIPME", "no")
    assert await store.execute("CLIENT", "ID") != before
    server.child.kill()
    with pytest.raises(StoreUnavailableError, match=r"^ConnectionError$"):
        await store.execute("PING")
    restart(server)
    assert await store.execute("SET", "k", "v")


async def test_a_server_that_hangs_costs_a_second_and_answers_nobody_else(server, open_store):
    store = await open_store(server.url, connect_timeout_ms=300)
    await store.execute("SET", "k", "mine")
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError, match=r"^TimeoutError$"):
            await store.execute("SET", "k", "late")
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    assert await store.execute("ECHO", "hello") == b"hello"


async def test_who_waits_for_news_of_a_server_that_hangs_is_told_soon_after_it_might_have_come(server, open_store):
    store = await open_store(server.url, connect_timeout_ms=300)
    waiting = asyncio.create_task(store.execute("XREAD", "BLOCK", round(BLOCK_S * 1_000), "STREAMS", "news", "0"))
    while b"cmd=xread" not in await store.execute("CLIENT", "LIST"):
        await asyncio.sleep(0.01)
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(2 * BLOCK_S):
            with pytest.raises(StoreUnavailableError, match=r"^TimeoutError$"):
                await waiting
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    await store.execute("XADD", "news", "*", "what", "it is back")
    assert await store.execute("XREAD", "BLOCK", 1, "STREAMS", "news", "0")


async def test_who_waits_when_the_store_is_closed_is_told(server, open_store):
    store = await open_store(server.url)
    await store.execute("PING")
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        waiting = asyncio.create_task(store.execute("PING"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        with pytest.raises(StoreUnavailableError, match=r"^ConnectionError$"):
            await waiting
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    await closing


async def test_a_store_that_is_closed_while_it_connects_leaves_no_connection(server, open_store):
    store = await open_store(server.url)
    with redis.Redis.from_url(server.url) as admin:
        os.kill(server.child.pid, signal.SIGSTOP)
        try:
            asked = asyncio.create_task(store.execute("PING"))
            await asyncio.sleep(0)
            await store.close()
        finally:
            os.kill(server.child.pid, signal.SIGCONT)
        with pytest.raises(StoreUnavailableError):
            await asked
        async with asyncio.timeout(10):
            while len(admin.client_list()) > 1:
                await asyncio.sleep(0.01)
