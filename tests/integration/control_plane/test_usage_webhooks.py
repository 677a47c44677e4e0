"""Webhooks of usage against a real server: once, signed, again when it fails, never inside."""

import asyncio
import base64
import hmac
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import httpx
import pytest

from control_plane.database import Database
from control_plane.settings import Settings
from control_plane.usage import near_limit_repository
from control_plane.usage.near_limit_repository import Near
from control_plane.usage.webhooks import jobs as delivery
from control_plane.usage.webhooks.addresses import all_public, host_of, url_fault
from control_plane.usage.webhooks.alerts import find_alerts
from control_plane.usage.webhooks.service import WebhookKeys
from testing.control_plane import RunningControlPlane, running
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tests.integration.control_plane.usage_batches import batch, cell, ship, this_hour
from tidegate.stack.postgres import PostgresServer


class Receiver:
    """Keeps what it is sent; answers with ``status``, ``cookie`` and, for redirects, ``location``."""

    def __init__(self) -> None:
        self.status = 204
        self.location = self.cookie = ""
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        answer = [f"HTTP/1.1 {self.status} X", f"Location: {self.location}", "Content-Length: 0"]
        answer += [f"Set-Cookie: {self.cookie}"] if self.cookie else []
        writer.write("\r\n".join([*answer, "", ""]).encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


@pytest.fixture
async def served(make_settings: Callable[..., Settings]) -> AsyncIterator[RunningControlPlane]:
    async with running(make_settings(webhooks_may_reach_private=True), ADMIN_TOKEN) as control_plane:
        await prepare(control_plane)
        yield control_plane


async def prepare(served: RunningControlPlane) -> None:
    await served.add_region("us-east")
    limits = [{"name": "hourly", "limit": 100, "window": "hour"}]
    (await served.admin.put("/v1/plans/free", json={"limits": limits})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()


async def run(served: RunningControlPlane, job: str) -> str:
    """Run a job by hand and wait until a run that began afterwards is over."""
    before = (await served.admin.get(f"/v1/jobs/{job}")).json()["last_started_at"]
    (await served.admin.post(f"/v1/jobs/{job}/run")).raise_for_status()
    async with asyncio.timeout(15):
        while True:
            now = (await served.admin.get(f"/v1/jobs/{job}")).json()
            if now["last_started_at"] != before and not now["running"]:
                assert now["last_outcome"] == "done", now["last_detail"]
                return str(now["last_detail"])
            await asyncio.sleep(0.05)


async def deliveries(served: RunningControlPlane) -> list[dict[str, object]]:
    answer = await served.admin.get("/v1/usage-webhooks/ops/deliveries")
    items: list[dict[str, object]] = answer.raise_for_status().json()["items"]
    return sorted(items, key=lambda item: str(item["threshold"]))


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """By Standard Webhooks, written out: their library signs, and shall not be its own judge."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return hmac.compare_digest(f"v1,{made}", headers["webhook-signature"])


async def test_tells_each_threshold_once_signed_with_a_key_that_is_shown_once(
    served: RunningControlPlane, receiver: Receiver, postgres_server: PostgresServer, database_name: str
) -> None:
    hook = {"webhook": "ops", "url": f"http://127.0.0.1:{receiver.port}/usage"}
    made = await served.admin.post("/v1/usage-webhooks", json=hook)
    secret = made.raise_for_status().json()["secret"]
    assert made.headers["cache-control"] == "no-store"
    assert "secret" not in (await served.admin.get("/v1/usage-webhooks/ops")).json()
    everything = postgres_server.execute("SELECT string_agg(w::text, '') FROM usage_webhooks w", database=database_name)
    assert secret.removeprefix("whsec_") not in everything
    assert secret not in (await served.admin.get("/v1/audit")).text

    await ship(served, batch(1, cell(allowed=79)))
    await run(served, "usage-alerts")
    assert await deliveries(served) == []
    await ship(served, batch(2, cell(allowed=1)))
    for _ in range(2):
        await run(served, "usage-alerts")
        await run(served, "usage-webhooks")
    assert [one["threshold"] for one in await deliveries(served)] == [0.8]
    await ship(served, batch(3, cell(allowed=20)))
    await run(served, "usage-alerts")
    await run(served, "usage-webhooks")
    assert [(one["threshold"], one["attempts"], one["error"]) for one in await deliveries(served)] == [
        (0.8, 1, None),
        (1.0, 1, None),
    ]
    assert len(receiver.got) == 2
    headers, body = receiver.got[-1]
    told = json.loads(body)
    assert (told["client"], told["limit"], told["threshold"], told["used"], told["of"]) == (
        "acme",
        "hourly",
        1.0,
        100,
        100,
    )
    assert headers["webhook-id"] == told["id"]
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert is_signed(secret, headers, body)
    assert not is_signed(f"whsec_{base64.b64encode(bytes(32)).decode()}", headers, body)


async def test_what_a_window_counted_last_is_told_after_its_end(
    served: RunningControlPlane, make_settings: Callable[..., Settings]
) -> None:
    hook = {"url": "https://example.com/", "thresholds": [0.5, 1.0]}
    (await served.admin.put("/v1/usage-webhooks/ops", json=hook)).raise_for_status()
    begun = this_hour()
    end = datetime.fromtimestamp(begun * 3_600, UTC)
    await ship(served, batch(1, cell(allowed=99), hour=begun - 1))
    settings = make_settings()
    database = Database(settings.database_url.get_secret_value(), connect_timeout_s=5, command_timeout_s=5, pool_size=2)
    try:
        assert await find_alerts(database, end - timedelta(seconds=10)) == 1
        await ship(served, batch(2, cell(allowed=1), hour=begun - 1), batch(3, cell(allowed=49), hour=begun))
        assert await find_alerts(database, end + timedelta(seconds=50)) == 1
        assert await find_alerts(database, end + timedelta(seconds=110)) == 0
    finally:
        await database.close()
    begin = (end - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    told = [(one["threshold"], one["used"], one["window_start"]) for one in await deliveries(served)]
    assert told == [(0.5, 99, begin), (1.0, 100, begin)]


async def test_a_threshold_is_reached_by_the_very_unit_that_reaches_it(served: RunningControlPlane) -> None:
    # as floats, 0.07 x 100 and 1.1 x 100 are a little more than 7 and 110
    hook = {"url": "https://example.com/", "thresholds": [0.07, 1.1]}
    (await served.admin.put("/v1/usage-webhooks/ops", json=hook)).raise_for_status()
    for sequence, units, reached in ((1, 6, []), (2, 1, [0.07]), (3, 102, [0.07]), (4, 1, [0.07, 1.1])):
        await ship(served, batch(sequence, cell(allowed=units)))
        await run(served, "usage-alerts")
        assert [one["threshold"] for one in await deliveries(served)] == reached


def url_of(server: asyncio.Server) -> str:
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def waiting(postgres_server: PostgresServer, database_name: str, *webhooks: tuple[str, str, int]) -> None:
    """Webhooks by name and URL, with so many messages each that are due: those of which there are more first."""
    rows = [
        "INSERT INTO usage_webhooks (webhook, url, thresholds, enabled, salt) "
        f"VALUES ('{name}', '{url}', '[0.5]', true, 'x'); "
        "INSERT INTO usage_alerts (alert, webhook, client, plan, limit_name, window_start, percent, used, "
        f"\"limit\", attempts, due_at) SELECT '{name}' || n, '{name}', 'c' || n, 'p', 'l', now(), 50, 1, 1, "
        f"0, now() - interval '{messages} s' FROM generate_series(1, {messages}) n; "
        for name, url, messages in webhooks
    ]
    postgres_server.execute("".join(rows), database=database_name)


async def test_a_silent_name_server_keeps_nothing_else_waiting(
    make_settings: Callable[..., Settings],
    receiver: Receiver,
    postgres_server: PostgresServer,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, released, look_up = make_settings(), threading.Event(), socket.getaddrinfo

    def silent(host: str, *rest: Any, **options: Any) -> Any:
        if host == "silent.example":
            released.wait()
            raise socket.gaierror
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(delivery, "TIMEOUT_S", 600.0)
    most_threads = 32  # of the event loop itself, on any machine
    dead = [(f"dead-{n}", "http://silent.example/", delivery.A_TURN) for n in range(most_threads // delivery.A_TURN)]
    quick = ("quick", f"http://localhost:{receiver.port}/", 1)
    waiting(postgres_server, database_name, *dead, quick)
    database = Database(settings.database_url.get_secret_value(), connect_timeout_s=5, command_timeout_s=5, pool_size=5)
    deliverer = delivery.Deliverer(database, WebhookKeys(settings.signing_key()), may_reach_private=True)
    run = asyncio.create_task(deliverer.deliver_due())
    try:
        async with asyncio.timeout(30):
            while not receiver.got:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(int)  # as usage is taken
        released.set()
        assert await run == (1, most_threads)
    finally:
        released.set()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await database.close()


async def test_a_slow_receiver_keeps_no_other_waiting(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer, database_name: str, monkeypatch
) -> None:
    settings = make_settings()
    open_ones, released = 0, asyncio.Event()
    heard: asyncio.Queue[int] = asyncio.Queue()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_ones
        open_ones += 1
        await released.wait()
        writer.close()

    async def quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        heard.put_nowait(open_ones)

    monkeypatch.setattr(delivery, "TIMEOUT_S", 600.0)
    database = Database(settings.database_url.get_secret_value(), connect_timeout_s=5, command_timeout_s=5, pool_size=5)
    async with (
        await asyncio.start_server(slow, "127.0.0.1", 0) as a,
        await asyncio.start_server(quick, "127.0.0.1", 0) as b,
    ):
        waiting(postgres_server, database_name, ("slow", url_of(a), 60), ("quick", url_of(b), 9))
        deliverer = delivery.Deliverer(database, WebhookKeys(settings.signing_key()), may_reach_private=True)
        run = asyncio.create_task(deliverer.deliver_due())
        try:
            async with asyncio.timeout(60):
                for _ in range(9):
                    assert await heard.get() <= delivery.A_TURN
            released.set()
            assert await run == (9, delivery.A_TURN)
        finally:
            released.set()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            await database.close()


async def test_tries_again_with_longer_pauses_and_follows_no_redirect(
    served: RunningControlPlane, receiver: Receiver, postgres_server: PostgresServer, database_name: str
) -> None:
    hook = {"url": f"http://localhost:{receiver.port}/", "thresholds": [0.5]}
    (await served.admin.put("/v1/usage-webhooks/ops", json=hook)).raise_for_status()
    secret = (await served.admin.post("/v1/usage-webhooks/ops/secret")).raise_for_status().json()["secret"]
    audit = await served.admin.get("/v1/audit", params={"action": "rotate", "resource": "usage webhook"})
    assert [(entry["resource"], entry["name"]) for entry in audit.json()["items"]] == [("usage webhook", "ops")]
    assert secret not in audit.text
    await ship(served, batch(1, cell(allowed=50)))
    receiver.status, receiver.location = 302, f"http://127.0.0.1:{receiver.port}/elsewhere"
    await run(served, "usage-alerts")
    await run(served, "usage-webhooks")
    (failed,) = await deliveries(served)
    assert (failed["attempts"], failed["error"], failed["delivered_at"]) == (1, "answered 302", None)
    assert len(receiver.got) == 1
    await run(served, "usage-webhooks")
    assert len(receiver.got) == 1, "its time has not come"
    receiver.status = 200
    await asyncio.to_thread(postgres_server.execute, "UPDATE usage_alerts SET due_at = now()", database=database_name)
    await run(served, "usage-webhooks")
    (arrived,) = await deliveries(served)
    assert (arrived["attempts"], arrived["error"], arrived["next_attempt_at"]) == (2, None, None)
    assert is_signed(secret, *receiver.got[-1])


async def test_a_receiver_leaves_nothing_for_another_at_its_address(
    served: RunningControlPlane, receiver: Receiver
) -> None:
    receiver.cookie = "theirs=1; Path=/"
    for name, host in (("one", "127.0.0.1"), ("two", "localhost")):
        hook = {"url": f"http://{host}:{receiver.port}/", "thresholds": [0.1, 0.2, 0.3, 0.4, 0.5]}
        (await served.admin.put(f"/v1/usage-webhooks/{name}", json=hook)).raise_for_status()
    await ship(served, batch(1, cell(allowed=50)))
    await run(served, "usage-alerts")
    await run(served, "usage-webhooks")
    assert [headers.get("cookie") for headers, _ in receiver.got] == [None] * 10


async def test_pauses_are_by_the_clock_of_the_database(
    served: RunningControlPlane, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Behind":
            return super().now(tz) - timedelta(hours=2)

    hook = {"url": f"http://localhost:{receiver.port}/", "thresholds": [0.5]}
    (await served.admin.put("/v1/usage-webhooks/ops", json=hook)).raise_for_status()
    await ship(served, batch(1, cell(allowed=50)))
    await run(served, "usage-alerts")
    monkeypatch.setattr(delivery, "datetime", Behind)
    receiver.status = 500
    await run(served, "usage-webhooks")
    await run(served, "usage-webhooks")
    (failed,) = await deliveries(served)
    assert (failed["attempts"], failed["error"], len(receiver.got)) == (1, "answered 500", 1)


async def test_one_that_has_no_address_keeps_no_other_waiting(
    served: RunningControlPlane, receiver: Receiver, postgres_server: PostgresServer, database_name: str
) -> None:
    for name in ("none", "ops"):
        hook = {"url": f"http://localhost:{receiver.port}/", "thresholds": [0.5]}
        (await served.admin.put(f"/v1/usage-webhooks/{name}", json=hook)).raise_for_status()
    # as it could once be written
    await asyncio.to_thread(
        postgres_server.execute,
        "UPDATE usage_webhooks SET url = 'http://256.1.1.1/' WHERE webhook = 'none'",
        database=database_name,
    )
    await ship(served, batch(1, cell(allowed=50)))
    await run(served, "usage-alerts")
    await run(served, "usage-webhooks")
    assert len(receiver.got) == 1
    (failed,) = (await served.admin.get("/v1/usage-webhooks/none/deliveries")).json()["items"]
    assert (failed["attempts"], failed["error"]) == (1, "the URL is none")


async def test_gives_up_in_the_end(
    served: RunningControlPlane, postgres_server: PostgresServer, database_name: str
) -> None:
    hook = {"url": "http://127.0.0.1:9/", "thresholds": [0.5]}
    (await served.admin.put("/v1/usage-webhooks/ops", json=hook)).raise_for_status()
    await ship(served, batch(1, cell(allowed=50)))
    await run(served, "usage-alerts")
    await asyncio.to_thread(
        postgres_server.execute, "UPDATE usage_alerts SET attempts = 14, due_at = now()", database=database_name
    )
    await run(served, "usage-webhooks")
    (failed,) = await deliveries(served)
    assert (failed["attempts"], failed["next_attempt_at"], failed["error"]) == (15, None, "ConnectError")


async def test_reaches_nothing_that_is_not_public(make_settings: Callable[..., Settings], receiver: Receiver) -> None:
    async with running(make_settings(), ADMIN_TOKEN) as served:
        await prepare(served)
        hook = {"url": f"http://localhost:{receiver.port}/", "thresholds": [0.5]}
        (await served.admin.put("/v1/usage-webhooks/ops", json=hook)).raise_for_status()
        await ship(served, batch(1, cell(allowed=50)))
        await run(served, "usage-alerts")
        await run(served, "usage-webhooks")
        (failed,) = await deliveries(served)
        assert failed["error"] == "the host has an address that is not public"
    assert receiver.got == []


async def test_one_whose_plan_or_client_is_gone_tells_nothing_and_can_be_disabled(served: RunningControlPlane) -> None:
    hook = {"url": "https://example.com/", "thresholds": [0.5]}
    gone = {"of-plan": {**hook, "plan": "gone"}, "of-client": {**hook, "client": "gone"}}
    (await served.admin.put("/v1/plans/gone", json={"limits": []})).raise_for_status()
    (await served.admin.put("/v1/clients/gone", json={"plan": "free"})).raise_for_status()
    for name, body in {**gone, "ops": hook}.items():
        (await served.admin.put(f"/v1/usage-webhooks/{name}", json=body)).raise_for_status()
    await ship(served, batch(1, cell(allowed=50), cell(client="gone", allowed=50)))
    for path in ("/v1/plans/gone", "/v1/clients/gone"):
        (await served.admin.delete(path)).raise_for_status()
    await run(served, "usage-alerts")
    assert [one["client"] for one in await deliveries(served)] == ["acme"]
    for name, body in gone.items():
        assert (await served.admin.get(f"/v1/usage-webhooks/{name}/deliveries")).json()["items"] == []
        changed = await served.admin.put(f"/v1/usage-webhooks/{name}", json={**body, "enabled": False})
        assert (changed.status_code, changed.json()["enabled"]) == (200, False)
        for wrong in ({"plan": "none"}, {"client": "none"}):
            refused = await served.admin.put(f"/v1/usage-webhooks/{name}", json={**body, **wrong})
            assert [error["field"] for error in refused.json()["errors"]] == list(wrong)


@pytest.mark.parametrize("again", [False, True])
async def test_one_that_is_deleted_during_a_look_leaves_nothing_to_its_namesake(
    served: RunningControlPlane, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    url = make_settings().database_url.get_secret_value()
    database = Database(url, connect_timeout_s=5, command_timeout_s=5, pool_size=2)
    hook = {"url": "https://example.com/", "thresholds": [0.5]}
    (await served.admin.put("/v1/plans/other", json={})).raise_for_status()
    for name in ("ops", "stays"):
        (await served.admin.put(f"/v1/usage-webhooks/{name}", json=hook)).raise_for_status()
    await ship(served, batch(1, cell(allowed=50)))
    near = near_limit_repository.near

    async def slow(*looked_for: Any) -> Sequence[Near]:
        found = await near(*looked_for)
        if (await served.admin.delete("/v1/usage-webhooks/ops")).status_code == 204 and again:
            (await served.admin.put("/v1/usage-webhooks/ops", json={**hook, "plan": "other"})).raise_for_status()
        return found

    monkeypatch.setattr(near_limit_repository, "near", slow)
    try:
        assert await find_alerts(database, datetime.now(UTC)) == 1
    finally:
        await database.close()
    monkeypatch.undo()
    if not again:
        (await served.admin.put("/v1/usage-webhooks/ops", json={**hook, "plan": "other"})).raise_for_status()
    assert await deliveries(served) == []
    told = (await served.admin.get("/v1/usage-webhooks/stays/deliveries")).json()["items"]
    assert [one["client"] for one in told] == ["acme"]


async def test_names_what_is_wrong_with_a_webhook(served: RunningControlPlane) -> None:
    good = {"url": "https://example.com/"}
    for wrong, field in (
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://user:secret@example.com/"}, "url"),
        ({"url": "https:///nowhere"}, "url"),
        ({"url": "https://256.1.1.1/"}, "url"),
        ({"url": "https://xn--/"}, "url"),
        (good | {"thresholds": []}, "thresholds"),
        (good | {"thresholds": [0.8, 0.8]}, "thresholds"),
        (good | {"thresholds": [0.995]}, "thresholds"),  # it would be told as 1.0
        (good | {"plan": "none"}, "plan"),
        (good | {"client": "none"}, "client"),
        (good | {"colour": "red"}, "colour"),
    ):
        answer = await served.admin.put("/v1/usage-webhooks/ops", json=wrong)
        assert answer.status_code == 422, wrong
        assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_knows_what_is_not_public_however_it_is_written() -> None:
    for inside in (
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "fec0::1", "168.63.129.16", "::ffff:168.63.129.16", "192.88.99.1", "2002:c058:6301::", "3fff::1",
    ):  # fmt: skip
        assert not all_public([inside]), inside
        assert not all_public(["93.184.216.34", inside])
    assert all_public(["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
    assert url_fault("https://example.com:99999/") is not None
    # not straße.de encoded anew by other rules, which is somebody else's
    assert host_of(httpx.URL("https://xn--strae-oqa.de/")) == "xn--strae-oqa.de"
