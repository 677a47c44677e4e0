"""No reader holds what writers need: dry runs give way, end with their client and in time; long writes give way to
what is urgent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import httpx
import pytest

from control_plane.config_file import endpoints, writing
from control_plane.database import RESERVED
from control_plane.settings import Settings
from testing.control_plane import running
from tests.integration.control_plane.conftest import ADMIN_TOKEN, DATABASE, client_of
from tidegate.stack.postgres import PostgresServer

FILE: dict[str, Any] = {"version": 1, "plans": {"free": {}}, "clients": {"acme": {"plan": "free"}}}
WITHOUT_ACME: dict[str, Any] = {"version": 1, "clients": {}}
PRUNING = {"prune": "clients"}
SOON_S = 30.0
"""A write waits about a second for one that gives way; for one that does not it is refused (503) after five or ten."""


class Pause:
    """Holds whatever applies a file where everything is written and nothing committed, until it is told to go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def here(self) -> None:
        self.reached.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> Pause:
    found, apply = Pause(), writing.apply

    async def slow(*arguments: Any, **named: Any) -> None:
        await apply(*arguments, **named)
        await arguments[0].session.flush()
        await found.here()

    monkeypatch.setattr(writing, "apply", slow)
    return found


@asynccontextmanager
async def under_way(call: Any, pause: Pause) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    task = asyncio.create_task(call)
    try:
        await asyncio.wait_for(pause.reached.wait(), 10)
        yield task
    finally:
        pause.go_on.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def with_acme(api: httpx.AsyncClient, pause: Pause) -> None:
    pause.go_on.set()
    (await api.put("/v1/config", json=FILE)).raise_for_status()
    pause.reached.clear()
    pause.go_on.clear()


async def viewer(api: httpx.AsyncClient) -> dict[str, str]:
    made = await api.post("/v1/tokens", json={"name": "reader", "role": "viewer"})
    return {"Authorization": f"Bearer {made.json()['secret']}"}


@pytest.mark.parametrize(
    "write",
    [
        ("POST", "/v1/blocks", {"client": "acme", "reason_class": "abuse"}),
        ("PUT", "/v1/plans/free", {"priority": 7}),
        ("DELETE", "/v1/clients/acme", None),
    ],
    ids=["a block", "a plan", "what the diff would delete as well"],
)
async def test_a_viewers_diff_holds_up_no_write(
    api: httpx.AsyncClient, pause: Pause, write: tuple[str, str, Any]
) -> None:
    await with_acme(api, pause)
    diff = api.post("/v1/config/diff", json=WITHOUT_ACME, params=PRUNING, headers=await viewer(api))
    method, path, body = write
    async with under_way(diff, pause), asyncio.timeout(SOON_S):
        answer = await api.request(method, path, json=body)
    assert answer.status_code in {200, 201, 204}, answer.text


async def test_a_diff_that_blocks_a_write_is_told_to_come_again(api: httpx.AsyncClient, pause: Pause) -> None:
    await with_acme(api, pause)
    diff = api.post("/v1/config/diff", json=WITHOUT_ACME, params=PRUNING)
    async with under_way(diff, pause) as task:
        assert (await api.delete("/v1/clients/acme")).status_code == 204
        answer = await asyncio.wait_for(task, SOON_S)
    assert answer.status_code == 503
    assert "gave way" in answer.json()["detail"]
    assert "retry-after" in answer.headers


@pytest.mark.parametrize("urgent", ["block", "switch", "revocation"])
async def test_what_is_urgent_passes_a_long_write(api: httpx.AsyncClient, pause: Pause, urgent: str) -> None:
    await with_acme(api, pause)
    (await api.put("/v1/limits/all", json={"limit": 5, "window_s": 60, "scope": "global"})).raise_for_status()
    key = (await api.post("/v1/clients/acme/keys", json={"name": "k"})).json()["key_id"]
    calls: dict[str, tuple[str, str, Any]] = {
        "block": ("POST", "/v1/blocks", {"client": "acme", "reason_class": "abuse"}),
        "switch": ("PUT", "/v1/enforcement", {"mode": "shadow", "expires_at": "2099-01-01T00:00:00Z"}),
        "revocation": ("DELETE", f"/v1/clients/acme/keys/{key}", None),
    }
    method, path, body = calls[urgent]
    async with under_way(api.put("/v1/config", json=WITHOUT_ACME, params=PRUNING), pause) as task:
        async with asyncio.timeout(SOON_S):
            answer = await api.request(method, path, json=body)
        assert answer.status_code in {201, 204}, answer.text
        long = await asyncio.wait_for(task, SOON_S)
    assert (long.status_code, "gave way" in long.json()["detail"]) == (503, True)
    assert (await api.get("/v1/clients/acme")).status_code == 200


async def test_what_is_urgent_passes_a_long_write_of_another_replica(
    make_settings: Callable[..., Settings], pause: Pause
) -> None:
    async with client_of(make_settings()) as one, client_of(make_settings()) as other:
        await with_acme(one, pause)
        async with under_way(one.put("/v1/config", json=WITHOUT_ACME, params=PRUNING), pause):
            async with asyncio.timeout(SOON_S):
                answer = await other.post("/v1/blocks", json={"client": "acme", "reason_class": "abuse"})
            assert answer.status_code == 201, answer.text


async def test_a_dry_run_ends_with_its_client(make_settings: Callable[..., Settings], pause: Pause) -> None:
    async with running(make_settings(), ADMIN_TOKEN) as control_plane:
        diff = asyncio.create_task(control_plane.admin.post("/v1/config/diff", json=FILE))
        await asyncio.wait_for(pause.reached.wait(), 10)
        diff.cancel()
        with suppress(asyncio.CancelledError):
            await diff
        await asyncio.wait_for(pause.cancelled.wait(), SOON_S)


async def test_a_dry_run_has_a_deadline_by_role(
    api: httpx.AsyncClient, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await viewer(api)
    monkeypatch.setattr(endpoints, "VIEWER_TRIES_S", 0.2)
    late = await asyncio.wait_for(api.post("/v1/config/diff", json=FILE, headers=reader), SOON_S)
    assert (late.status_code, "longer than" in late.json()["detail"]) == (503, True)
    assert pause.cancelled.is_set() or not pause.reached.is_set()
    async with under_way(api.post("/v1/config/diff", json=FILE), pause) as task:
        pause.go_on.set()
        assert (await task).status_code == 200


async def test_a_viewers_file_is_small(api: httpx.AsyncClient) -> None:
    large = {"version": 1, "plans": {f"plan-{number}": {"priority": 5} for number in range(40_000)}}
    reader = await viewer(api)
    assert (await api.post("/v1/config/diff", json=large, headers=reader)).status_code == 413
    assert (await api.post("/v1/config/diff", json={**large, "plans": {}}, headers=reader)).status_code == 200


async def test_readers_leave_connections_for_writes(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    size = RESERVED + 2
    settings = make_settings(database_pool_size=size, database_command_timeout_s=20.0)
    async with client_of(settings) as api:
        holder = await asyncpg.connect(postgres_server.url(DATABASE, scheme="postgresql"))
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("LOCK TABLE plans IN ACCESS EXCLUSIVE MODE")
        reads = [asyncio.create_task(api.get("/v1/plans")) for _ in range(3 * size)]
        try:
            async with asyncio.timeout(10):
                while await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
                    await asyncio.sleep(0.02)
            block = await asyncio.wait_for(
                api.post("/v1/blocks", json={"ip": "192.0.2.0/24", "reason_class": "abuse"}), SOON_S
            )
            assert block.status_code == 201, block.text
        finally:
            await transaction.rollback()
            await holder.close()
            await asyncio.gather(*reads)
