"""Revisions: one a write, without gaps, with who and why; and a database that is away is said so, quickly."""

import asyncio
import time
from collections.abc import Callable

import httpx
from asgi_lifespan import LifespanManager
from pydantic import SecretStr

from control_plane.app import create_app
from control_plane.migration import migrate
from control_plane.settings import Settings
from testing.control_plane import running
from testing.proxy import Proxy
from tests.integration.control_plane.conftest import ADMIN_TOKEN, client_of
from tidegate.stack.postgres import PostgresServer


async def test_parallel_writes_make_revisions_without_gaps(make_settings: Callable[..., Settings]) -> None:
    # two replicas: the lock of one process is not enough
    async with client_of(make_settings()) as one, client_of(make_settings()) as two:
        await one.put("/v1/plans/free", json={})
        writes = [
            client.put(f"/v1/clients/c{number}", json={"plan": "free"})
            for number in range(10)
            for client in ([one, two] if number % 2 else [two, one])
        ]
        answers = await asyncio.gather(*writes)
        assert {answer.status_code for answer in answers} == {200, 201}
        history = (await one.get("/v1/revisions?limit=1000")).json()["items"]
    # each client was written twice, and the second time nothing differed
    assert [item["revision"] for item in history] == list(range(11, 0, -1))
    assert len({item["digest"] for item in history}) == 11
    assert {int(answer.headers["x-tidegate-revision"]) for answer in answers} <= set(range(2, 12))


async def test_lost_updates_are_refused(api: httpx.AsyncClient) -> None:
    made = await api.put("/v1/plans/p", json={})
    tag = {"If-Match": made.headers["etag"]}
    answers = await asyncio.gather(*(api.put("/v1/plans/p", json={"priority": n}, headers=tag) for n in range(1, 9)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_a_revision_says_who_and_why_and_what(api: httpx.AsyncClient) -> None:
    why = "für Olive, " + 480 * "ж"
    made = await api.put("/v1/plans/p", json={"priority": 1}, headers={"X-Tidegate-Reason": why.encode()})
    assert made.headers["x-tidegate-revision"] == "1"
    await api.put("/v1/plans/p", json={"priority": 2})
    first = await api.get("/v1/revisions/1")
    assert (first.json()["author"], first.json()["reason"]) == ("first-admin", why)
    assert first.headers["etag"]
    refused = await api.put("/v1/plans/p", json={}, headers={"X-Tidegate-Reason": (501 * "ж").encode()})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"field": "X-Tidegate-Reason", "message": "has more than 500 letters"}]
    diff = (await api.get("/v1/revisions/2/diff")).json()
    assert diff["changes"] == [
        {"kind": "plan", "id": "p", "before": {"plan": "p", "priority": 1}, "after": {"plan": "p", "priority": 2}}
    ]
    newest = (await api.get("/v1/revisions", params={"limit": 1})).json()
    assert [item["revision"] for item in newest["items"]] == [2]
    older = (await api.get("/v1/revisions", params={"limit": 1, "cursor": newest["next_cursor"]})).json()
    assert [item["revision"] for item in older["items"]] == [1]
    assert older["next_cursor"] is None
    for path in ("/v1/revisions/3", "/v1/revisions/3/diff"):
        assert (await api.get(path)).status_code == 404


async def test_a_failed_write_leaves_nothing_behind(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/p", json={})
    await api.put("/v1/clients/acme", json={"plan": "p"})
    assert (await api.delete("/v1/plans/p")).status_code == 409
    assert (await api.get("/v1/plans/p")).status_code == 200
    assert (await api.put("/v1/plans/q", json={})).headers["x-tidegate-revision"] == "3"


SOON_S = 10.0
"""A connection and a command may take a second each; without these settings they would take a minute."""


def through(proxy: Proxy, settings: Settings, server: PostgresServer) -> SecretStr:
    return SecretStr(settings.database_url.get_secret_value().replace(f":{server.port}/", f":{proxy.port}/"))


async def test_a_database_that_is_away_is_said_quickly_and_comes_back(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    async with Proxy(postgres_server.port).running() as proxy:
        url = through(proxy, make_settings(), postgres_server)
        settings = make_settings(database_url=url, database_connect_timeout_s=1.0, database_command_timeout_s=1.0)
        async with running(settings, ADMIN_TOKEN) as control_plane:
            admin = control_plane.admin
            await control_plane.add_region("us-east")
            node = control_plane.node()
            async with node.following():
                await node.until(1)
                for away in ("refusing", "silent"):
                    await control_plane.until_nodes(lambda nodes: nodes["node-1"]["behind"] == 0)
                    if away == "refusing":
                        await proxy.cut()
                    else:
                        proxy.silent = True
                    for method, path in (("GET", "/v1/plans"), ("PUT", "/v1/plans/p"), ("GET", "/readyz")):
                        started = time.monotonic()
                        refused = await admin.request(method, path, json={} if method == "PUT" else None)
                        assert refused.status_code == 503, (away, refused.text)
                        assert refused.headers["content-type"] == "application/problem+json"
                        assert time.monotonic() - started < SOON_S
                    assert (await admin.get("/healthz")).status_code == 200
                    # the stream stays open and goes on saying what the node should have
                    heartbeats = len(node.heartbeats)
                    await node.until_heartbeats(heartbeats + 2)
                    assert not node.ended.is_set()
                    if away == "silent":
                        await proxy.cut()
                    await proxy.heal()
                    written = await until_written(admin, f"after-{away}")
                    await node.until(int(written.headers["x-tidegate-revision"]))


async def until_written(admin: httpx.AsyncClient, plan: str) -> httpx.Response:
    async with asyncio.timeout(20):
        while True:
            written = await admin.put(f"/v1/plans/{plan}", json={})
            if written.status_code in {200, 201}:
                return written
            assert written.status_code == 503, written.text
            await asyncio.sleep(0.05)


async def test_an_empty_database_is_not_ready(
    make_settings: Callable[..., Settings], postgres_url: str, signing_key: object
) -> None:
    settings = make_settings(database_url=SecretStr(postgres_url))
    async with LifespanManager(create_app(settings)) as manager:
        transport = httpx.ASGITransport(app=manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://control-plane") as client:
            answer = await client.get("/readyz")
            assert answer.status_code == 503
            assert "migrated" in answer.json()["detail"]
            assert (await client.get("/healthz")).status_code == 200


async def test_replicas_stay_ready_on_a_newer_schema_that_still_serves_them(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = postgres_url.rpartition("/")[2]
    await asyncio.to_thread(migrate, postgres_url)
    async with client_of(make_settings(database_url=SecretStr(postgres_url))) as client:
        # the next version's hook has migrated; nobody here has heard of its revision
        await asyncio.to_thread(
            postgres_server.execute, "UPDATE alembic_version SET version_num = '9000'", database=database
        )
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.put("/v1/plans/free", json={})).status_code == 201
        await asyncio.to_thread(
            postgres_server.execute, "UPDATE schema_support SET works_from = '9000'", database=database
        )
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["detail"] == "The database is migrated to a version that this one does not work with."
        await asyncio.to_thread(
            postgres_server.execute, "UPDATE alembic_version SET version_num = '0000'", database=database
        )
        assert "not migrated to this version" in (await client.get("/readyz")).json()["detail"]
