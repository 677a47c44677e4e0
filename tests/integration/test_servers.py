"""The servers that other tests stand on do what those tests take for granted."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
import redis
import redis.asyncio

from testing.proxy import Proxy
from testing.stack import wait_for
from testing.stores import START_TIMEOUT_S
from tidegate.stack.child import wait_until_ready
from tidegate.stack.ports import free_ports, require_free
from tidegate.stack.postgres import PostgresServer
from tidegate.stack.progress import StackError
from tidegate.stack.store import StoreServer


async def test_each_test_gets_an_empty_database(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert await connection.fetchval("SELECT current_user") == "tidegate"
    finally:
        await connection.close()


async def test_postgres_takes_no_wrong_password(postgres_url: str) -> None:
    user, _, rest = postgres_url.replace("+asyncpg", "").rpartition("@")
    wrong = user.rpartition(":")[0] + ":wrong@" + rest
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


async def test_what_is_committed_survives_a_kill_of_postgres(tmp_path: Path) -> None:
    server = PostgresServer(
        tmp_path / "data", port=free_ports(1)[0], password="word", log_path=tmp_path / "postgres.log", durable=False
    )
    server.prepare()
    server.child.start()
    try:
        wait_until_ready(server.child, server.is_ready, timeout_s=START_TIMEOUT_S)
        connection = await asyncpg.connect(server.url("postgres", scheme="postgresql"))
        await connection.execute("CREATE TABLE kept (number int)")
        for number in range(100):
            await connection.execute("INSERT INTO kept VALUES ($1)", number)
        server.child.kill()
        connection.terminate()
        wait_for(lambda: _started(server), START_TIMEOUT_S, "Postgres to recover")
        assert server.execute("SELECT count(*) FROM kept") == "100"
    finally:
        server.child.stop()


def _started(server: PostgresServer) -> bool:
    """Start it unless it runs: it refuses while its last life still ends."""
    if server.child.exit_code() is not None:
        server.child.start()
    return server.is_ready()


def test_store_is_empty_and_never_evicts(store_url: str) -> None:
    with redis.Redis.from_url(store_url) as client:
        assert client.dbsize() == 0
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_store_takes_no_stranger(valkey_server: StoreServer) -> None:
    with redis.Redis(port=valkey_server.port, retry=None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_taken_port_is_named_with_its_option(valkey_server: StoreServer) -> None:
    with pytest.raises(StackError, match=rf"port {valkey_server.port} .* control plane.*--control-plane-port"):
        require_free(valkey_server.port, wanted_by="control plane", option="--control-plane-port")
    require_free(free_ports(1)[0], wanted_by="control plane", option="--control-plane-port")


async def test_proxy_delays_each_way(valkey_server: StoreServer) -> None:
    async with Proxy(valkey_server.port, delay_s=0.1).running() as proxy, _client(valkey_server, proxy) as client:
        await client.ping()
        loop = asyncio.get_running_loop()
        before = loop.time()
        await client.ping()
        assert loop.time() - before >= 0.2


async def test_proxy_cuts_and_heals(valkey_server: StoreServer) -> None:
    async with Proxy(valkey_server.port).running() as proxy, _client(valkey_server, proxy) as client:
        assert await client.ping()
        await proxy.cut()
        with pytest.raises(redis.ConnectionError):
            await client.ping()
        await proxy.heal()
        assert await client.ping()


async def test_silent_proxy_keeps_the_connection_and_lets_nothing_through(valkey_server: StoreServer) -> None:
    async with Proxy(valkey_server.port).running() as proxy, _client(valkey_server, proxy) as client:
        assert await client.ping()
        proxy.silent = True
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.ping(), 0.2)
        assert proxy.accepted == 1


def _client(server: StoreServer, proxy: Proxy) -> redis.asyncio.Redis:
    through = server.url.replace(f":{server.port}/", f":{proxy.port}/")
    return redis.asyncio.Redis.from_url(through, retry=None, single_connection_client=True)
