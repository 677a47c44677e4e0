"""A Postgres that says nothing more (stopped, or behind a network that drops everything), or that refuses: 503 soon,
streams stay.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy import text

from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.settings import Settings
from testing.control_plane import RunningControlPlane, running
from testing.proxy import CHUNK_BYTES, Proxy
from tests.integration.control_plane.conftest import ADMIN_TOKEN, DATABASE, client_of
from tests.integration.control_plane.test_revisions import through, until_written
from tidegate.stack.postgres import PostgresServer

AS_RELEASED = {
    name: Settings.model_fields[name].default
    for name in ("database_connect_timeout_s", "database_command_timeout_s", "database_pool_size", "heartbeat_s")
}
SOON_S = 7.0
"""About 3 s is promised; a command that is slow may take 10 s, so more than that would be waiting for the command."""
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def stopped(server: PostgresServer) -> AsyncIterator[None]:
    """Every process of the server as it is with SIGSTOP: the kernel still takes what it is sent."""
    main = server.child.pid
    children = children_of(main)
    try:
        for pid in (main, *children):
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in (*children, main):
            os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def black_hole(proxy: Proxy) -> AsyncIterator[None]:
    """Connections stay open, and new ones are taken, but nothing comes through."""
    proxy.silent = True
    yield
    await proxy.cut()
    await proxy.heal()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["stopped", "black hole"])
async def test_a_database_that_falls_silent_is_said_soon(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer, how: str
) -> None:
    async with Proxy(postgres_server.port).running() as proxy:
        url = through(proxy, make_settings(), postgres_server)
        async with running(make_settings(database_url=url, **AS_RELEASED), ADMIN_TOKEN) as control_plane:
            admin = control_plane.admin
            await control_plane.add_region("us-east")
            (await admin.put("/v1/plans/p", json={})).raise_for_status()
            holder = await asyncpg.connect(postgres_server.url(DATABASE, scheme="postgresql"))
            node = control_plane.node()
            async with node.following():
                await holder.execute("BEGIN")
                await control_plane.until_nodes(lambda nodes: nodes["node-1"]["behind"] == 0)
                await holder.execute("LOCK TABLE plans IN EXCLUSIVE MODE")
                under_way = asyncio.create_task(admin.put("/v1/plans/p", json={"priority": 5}))
                async with asyncio.timeout(30):
                    while not await holder.fetchval(WAITS, DATABASE):
                        await asyncio.sleep(0.02)
                async with stopped(postgres_server) if how == "stopped" else black_hole(proxy):
                    # more at once than there are connections
                    reads = (took_s(admin.get("/v1/plans")) for _ in range(AS_RELEASED["database_pool_size"] + 10))
                    writes = (took_s(admin.put(f"/v1/plans/q{number}", json={})) for number in range(5))
                    waits = await asyncio.gather(took_s(under_way), *reads, *writes)
                    assert max(waits) < SOON_S, waits
                    assert await took_s(admin.get("/readyz")) < SOON_S
                    assert (await admin.get("/healthz")).status_code == 200
                    heartbeats = len(node.heartbeats)
                    await node.until_heartbeats(heartbeats + 2)
                    assert not node.ended.is_set()
                await holder.execute("ROLLBACK")
                written = await until_written(admin, "after")
                await node.until(int(written.headers["x-tidegate-revision"]))
                assert not node.ended.is_set()
            await holder.close()


async def test_a_database_that_takes_no_connections_or_no_writes_is_said_and_followed_again(
    served: RunningControlPlane, postgres_server: PostgresServer
) -> None:
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}'"
    node = served.node(acks=False)  # an ACK that finds nobody would end it
    async with node.following():
        for setting in ("ALLOW_CONNECTIONS {}", "SET default_transaction_read_only = {}"):
            closed, open = ("false", "true") if "ALLOW" in setting else ("on", "off")
            postgres_server.execute(f"ALTER DATABASE {DATABASE} {setting.format(closed)}")
            try:
                postgres_server.execute(end)
                async with asyncio.timeout(10):
                    while (await served.admin.put("/v1/plans/p", json={})).status_code != 503:
                        await asyncio.sleep(0.05)
                for _ in range(3):
                    await took_s(served.admin.put("/v1/plans/p", json={}))
            finally:
                postgres_server.execute(f"ALTER DATABASE {DATABASE} {setting.format(open)}")
                postgres_server.execute(end)
            written = await until_written(served.admin, setting[:3].lower())
            await node.until(int(written.headers["x-tidegate-revision"]))
        run = await served.admin.post("/v1/jobs/drift-check/run", headers={"Prefer": "wait=20"})
        assert run.json()["last_outcome"] == "done", "who leads was cut off as well"


class Pooler(Proxy):
    """Takes connections while its database is ``away``, and ends them at the first question."""

    away = False

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(CHUNK_BYTES):
            if self.away and b"SELECT 1\0" in chunk:
                raise ConnectionResetError
            sink.write(chunk)
            await sink.drain()
        sink.write_eof()


async def test_a_database_that_is_away_behind_a_pooler_is_said(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    async with Pooler(postgres_server.port).running() as pooler:
        url = through(pooler, make_settings(), postgres_server)
        async with client_of(make_settings(database_url=url)) as api:
            assert (await api.get("/v1/plans")).status_code == 200
            pooler.away = True
            for _ in range(3):
                await took_s(api.get("/v1/plans"))
            await took_s(api.put("/v1/plans/p", json={}))
            pooler.away = False
            assert (await api.put("/v1/plans/p", json={})).status_code == 201


async def took_s(request: Awaitable[httpx.Response]) -> float:
    """Seconds until the problem came."""
    began = time.monotonic()
    refused = await request
    assert refused.status_code == 503, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert "retry-after" in refused.headers or refused.request.url.path == "/readyz"
    return time.monotonic() - began


async def test_what_closes_leaves_no_connection_open_that_is_in_use(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    url = make_settings().database_url.get_secret_value()
    database = Database(url, connect_timeout_s=5, command_timeout_s=5, pool_size=2)
    asker = await asyncpg.connect(postgres_server.url(DATABASE, scheme="postgresql"))
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidegate-control-plane' AND datname = $1"

    async def close_amid_a_read() -> None:
        async with database.read() as session:
            await session.execute(text("SELECT 1"))
            assert await asker.fetchval(ours, DATABASE) == 1
            await database.close()
            async with asyncio.timeout(10):
                while await asker.fetchval(ours, DATABASE):
                    await asyncio.sleep(0.02)
            await session.execute(text("SELECT 1"))

    try:
        with pytest.raises(UnavailableError):
            await close_amid_a_read()
    finally:
        await asker.close()
