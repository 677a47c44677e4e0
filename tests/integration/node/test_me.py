"""A client sees its own limits by its own key: what is left, when it is whole; it costs nothing, and is bounded."""

import httpx
import pytest
from pydantic import ValidationError

from data_plane.http.me import BURST, Pace
from data_plane.settings import Settings
from testing.node import GATEWAY_TOKEN, key_of, node_client, rule, settings_for
from tidegate.contract.blocks import Block
from tidegate.contract.config import Client, Gateway, Plan
from tidegate.contract.credentials import secret_sha256

PAGE = "https://app.example"
CONFIG = [
    Plan(
        plan="p",
        limits=(
            rule(1, "hourly", 10, algorithm="fixed_window"),
            rule(2, "bucket", 60, scope="client", algorithm="token_bucket", burst=20),
            rule(3, "by-endpoint", 7, scope="client+endpoint", algorithm="fixed_window"),
            rule(4, "hidden", 9, scope="global", algorithm="fixed_window"),
            rule(5, "tried", 9, algorithm="fixed_window", shadow=True),
        ),
    ),
    Client(client="acme", plan="p"),
    Client(client="late", plan="p", status="suspended"),
    Client(client="bad", plan="p"),
    *(key_of(name, f"tg_{name}") for name in ("acme", "late", "bad")),
    Block(block="out", client="bad", reason_class="abuse"),
]  # fmt: skip


@pytest.fixture
async def client(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, CONFIG, redis_deadline_ms=10_000, cors_origins=(PAGE,)) as one:
        yield one


async def mine(client: httpx.AsyncClient, key: str | None = "tg_acme", **headers: str) -> httpx.Response:
    return await client.get("/v1/me/limits", headers=({"x-api-key": key} if key else {}) | headers)


async def test_what_is_left_is_told_and_costs_nothing(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        (await client.post("/v1/check", json={"api_key": "tg_acme"})).raise_for_status()
    for _ in range(2):
        answer = await mine(client)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        found = answer.json()
        assert (found["client"], found["plan"], found["region"]) == ("acme", "p", "us-east")
        limits = {limit["policy"]: limit for limit in found["limits"]}
        assert list(limits) == ["hourly", "bucket", "by-endpoint"], "nothing that headers would not show"
        hourly = limits["hourly"]
        assert (hourly["limit"], hourly["used"], hourly["remaining"], hourly["window_s"]) == (10, 3, 7, 3_600)
        assert 0 < hourly["reset_after_s"] <= 3_600
        assert (limits["bucket"]["limit"], limits["bucket"]["remaining"]) == (20, 17)
        assert (limits["by-endpoint"]["limit"], limits["by-endpoint"]["remaining"]) == (7, None)
    bearer = await client.get("/v1/me/limits", headers={"authorization": "Bearer tg_acme"})
    assert bearer.json()["client"] == "acme"


async def test_only_its_own_key_opens_it(client: httpx.AsyncClient) -> None:
    for key, status, error in (
        (None, 401, "missing_api_key"), ("tg_wrong", 401, "unknown_api_key"), ("tg_late", 403, "client_suspended"),
        ("tg_bad", 403, "blocked"),
    ):  # fmt: skip
        answer = await mine(client, key)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert (await mine(client, "tg_acme", authorization="Bearer tg_bad")).json()["error"] == "ambiguous_api_key"


async def test_who_asks_too_often_waits_and_others_do_not(client: httpx.AsyncClient) -> None:
    answers = [await mine(client) for _ in range(BURST + 20)]
    late = [answer for answer in answers if answer.status_code == 429]
    assert late
    assert (late[0].headers["retry-after"], late[0].json()["error"]) == ("1", "asked_too_often")
    assert (await mine(client, "tg_wrong")).status_code == 401


def test_the_pace_is_a_bucket_a_client_and_bounded() -> None:
    pace = Pace()
    assert [pace.wait_s("acme", 0) for _ in range(BURST + 1)] == [0.0] * BURST + [1.0]
    assert pace.wait_s("zeta", 0) == 0
    assert [pace.wait_s("acme", 1_000_000) for _ in range(2)] == [0.0, 1.0]
    for at in range(25_000):
        pace.wait_s(f"c{at}", 2_000_000)
    assert len(pace) <= 10_000


async def test_pages_that_are_named_may_read_it_and_no_others(client: httpx.AsyncClient) -> None:
    named = await mine(client, origin=PAGE)
    assert (named.headers["access-control-allow-origin"], named.headers["vary"]) == (PAGE, "origin")
    assert "access-control-allow-origin" not in (await mine(client, origin="https://other.example")).headers
    preflight = await client.options("/v1/me/limits", headers={"origin": PAGE, "access-control-request-method": "GET"})
    assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (
        204,
        "authorization, x-api-key",
    )
    assert (await mine(client, "tg_wrong", origin=PAGE)).headers["access-control-allow-origin"] == PAGE
    stranger = await client.options("/v1/me/limits", headers={"origin": "https://other.example"})
    assert "access-control-allow-methods" not in stranger.headers


async def test_where_nothing_goes_without_a_gateway_token_this_does_not(tmp_path, valkey_url) -> None:
    gateway = Gateway(sha256=secret_sha256(GATEWAY_TOKEN), gateway="edge")
    async with node_client(
        tmp_path, valkey_url, [*CONFIG, gateway], trust="required", redis_deadline_ms=10_000
    ) as client:
        assert (await mine(client)).status_code == 401
        told = await client.get("/v1/me/limits", headers={"x-api-key": "tg_acme", "x-tidegate-token": GATEWAY_TOKEN})
        assert told.json()["client"] == "acme"


async def test_without_the_store_it_says_so(tmp_path) -> None:
    async with node_client(tmp_path, "redis://127.0.0.1:9", CONFIG, ready_without_store=True) as client:
        answer = await mine(client)
        assert (answer.status_code, answer.json()["error"]) == (503, "store_unavailable")
        assert "vary" not in answer.headers


def test_an_origin_has_no_path(tmp_path) -> None:
    assert settings_for(tmp_path, "redis://h", cors_origins="https://a.example, *").cors_origins == (
        "https://a.example", "*",
    )  # fmt: skip
    with pytest.raises(ValidationError, match="not an origin"):
        settings_for(tmp_path, "redis://h", cors_origins="https://a.example/page")
    assert Settings.model_fields["cors_origins"].default == ()
