"""Keys: shown once, hashed at rest, taken in, revoked; and resets and overrides of clients."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from control_plane.settings import Settings
from tests.integration.control_plane.conftest import ADMIN_TOKEN, client_of
from tidegate.contract.credentials import credential_kind, make_credential, secret_sha256
from tidegate.stack.postgres import PostgresServer, postgres_binary

SOON = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.fixture(autouse=True)
async def _acme(api: httpx.AsyncClient) -> None:
    limits = [
        {"name": "hourly", "limit": 1000, "window_s": 3600},
        {"name": "burst", "limit": 5, "window_s": 1, "algorithm": "token_bucket"},
    ]
    await api.put("/v1/plans/free", json={"limits": limits})
    await api.put("/v1/clients/acme", json={"plan": "free"})


async def diff_of(api: httpx.AsyncClient, response: httpx.Response) -> list[dict[str, Any]]:
    revision = response.headers["x-tidegate-revision"]
    changes: list[dict[str, Any]] = (await api.get(f"/v1/revisions/{revision}/diff")).json()["changes"]
    return changes


async def test_a_secret_is_shown_once(api: httpx.AsyncClient) -> None:
    made = await api.post("/v1/clients/acme/keys", json={"name": "ci", "expires_at": SOON})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    secret, key_id = made.json()["secret"], made.json()["key_id"]
    assert credential_kind(secret) == "client_key"
    for path in (f"/v1/clients/acme/keys/{key_id}", "/v1/clients/acme/keys", f"/v1/keys?prefix={secret[:12]}"):
        answer = await api.get(path)
        assert answer.status_code == 200
        assert key_id in answer.text
        assert secret not in answer.text
        assert secret_sha256(secret) not in answer.text
    shown = (await api.get(f"/v1/clients/acme/keys/{key_id}")).json()
    assert (shown["prefix"], shown["name"], shown["client"]) == (secret[:8], "ci", "acme")


async def test_no_secret_rests_in_the_database(
    api: httpx.AsyncClient, postgres_server: PostgresServer, database_name: str
) -> None:
    brought = "an-existing-secret-0123456789abcdef"
    secrets_shown = [ADMIN_TOKEN, brought]
    secrets_shown.append((await api.post("/v1/clients/acme/keys", json={})).json()["secret"])
    (await api.post("/v1/clients/acme/keys", json={"secret": brought})).raise_for_status()
    for role in ("admin", "gateway"):
        token = await api.post("/v1/tokens", json={"name": f"a-{role}", "role": role})
        secrets_shown.append(token.raise_for_status().json()["secret"])
    await api.put("/v1/regions/us-east", json={})
    secrets_shown.append((await api.post("/v1/regions/us-east/credentials")).json()["credential"])
    existing = make_credential("region", os.urandom(32))
    (await api.put("/v1/regions/eu-west", json={"credential": existing})).raise_for_status()
    secrets_shown.append(existing)

    url = postgres_server.url(database_name, scheme="postgresql")
    pg_dump = postgres_binary("pg_dump")
    dump = await asyncio.to_thread(subprocess.check_output, [pg_dump, "--inserts", url], text=True)
    for secret in secrets_shown:
        assert secret not in dump
        assert secret_sha256(secret) in dump


async def test_a_revoked_key_is_withdrawn(api: httpx.AsyncClient) -> None:
    made = await api.post("/v1/clients/acme/keys", json={})
    path = made.headers["location"]
    (published,) = await diff_of(api, made)
    assert published == {
        "kind": "key",
        "id": made.json()["key_id"],
        "before": None,
        "after": {"client": "acme", "key_id": made.json()["key_id"]},
    }
    revoked = await api.delete(path)
    assert revoked.status_code == 204
    (withdrawn,) = await diff_of(api, revoked)
    assert (withdrawn["id"], withdrawn["after"]) == (made.json()["key_id"], None)
    assert (await api.get(path)).status_code == 404
    assert (await api.delete(path)).status_code == 404


async def test_existing_secrets_and_hashes_are_taken_in_once(api: httpx.AsyncClient) -> None:
    secret = "existing-0123456789-abcdefgh"
    first = await api.post("/v1/clients/acme/keys", json={"secret": secret})
    assert (first.status_code, first.json()["secret"], first.json()["prefix"]) == (201, None, "existing")
    again = await api.post("/v1/clients/acme/keys", json={"secret_sha256": secret_sha256(secret)})
    assert again.status_code == 409
    other = await api.post("/v1/clients/acme/keys", json={"secret_sha256": secret_sha256("another")})
    assert (other.status_code, other.json()["prefix"]) == (201, None)


WRONG_KEYS = [
    ({"secret": "short"}, "secret"),
    ({"secret": "a" * 64}, "secret"),
    ({"secret": "with a space 0123456789abc"}, "secret"),
    ({"secret_sha256": "XYZ"}, "secret_sha256"),
    ({"secret": "existing-0123456789-abcdefgh", "secret_sha256": "0" * 64}, "body"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ({"expires_at": "tomorrow"}, "expires_at"),
    ({"name": "a\nb"}, "name"),
]


async def test_wrong_keys_are_named_and_never_echoed(api: httpx.AsyncClient) -> None:
    for body, field in WRONG_KEYS:
        refused = await api.post("/v1/clients/acme/keys", json=body)
        assert refused.status_code == 422, body
        assert [error["field"] for error in refused.json()["errors"]] == [field], body
        if "secret" in body:
            assert body["secret"] not in refused.text


async def test_a_replayed_creation_names_the_key_that_it_made(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "a-1"}
    made = await api.post("/v1/clients/acme/keys", json={}, headers=headers)
    replayed = await api.post("/v1/clients/acme/keys", json={}, headers=headers)
    assert replayed.status_code == 409
    assert replayed.json()["key_id"] == made.json()["key_id"]
    assert len((await api.get("/v1/clients/acme/keys")).json()["items"]) == 1


async def test_keys_go_with_their_client(api: httpx.AsyncClient) -> None:
    await api.post("/v1/clients/acme/keys", json={})
    gone = await api.delete("/v1/clients/acme")
    assert [(change["kind"], change["after"]) for change in await diff_of(api, gone)] == [
        ("client", None),
        ("key", None),
    ]


async def test_keys_are_found_by_how_they_begin(api: httpx.AsyncClient) -> None:
    for secret in ("abc_0123456789-abcdefgh", "abcd%123456789-abcdefgh"):
        (await api.post("/v1/clients/acme/keys", json={"secret": secret})).raise_for_status()

    async def found(prefix: str) -> int:
        return len((await api.get("/v1/keys", params={"prefix": prefix})).json()["items"])

    assert [await found(prefix) for prefix in ("abc", "abc_", "abc_012345", "abcd%", "ab%", "abcd")] == [
        2,
        1,
        1,
        1,
        0,
        1,
    ]
    assert await found("abcX0123-more") == 0
    assert (await api.get("/v1/keys")).json()["errors"][0]["field"] == "prefix"


async def test_a_reset_raises_the_generation(api: httpx.AsyncClient) -> None:
    for generation in (1, 2):
        reset = await api.post("/v1/clients/acme/reset", json={})
        assert (reset.status_code, reset.json()["generation"]) == (200, generation)
        (change,) = await diff_of(api, reset)
        assert change["after"]["generation"] == generation
    assert (await api.put("/v1/clients/acme", json={"plan": "free"})).json()["generation"] == 2
    assert (await api.post("/v1/clients/acme/reset", json={"hard": True})).json()["errors"][0]["field"] == "hard"
    assert (await api.post("/v1/clients/nobody/reset", json={})).status_code == 404


async def test_who_was_deleted_and_returns_was_reset_as_often_as_before(api: httpx.AsyncClient) -> None:
    """Else it would find in the stores what it had used before its resets, and the next one would change nothing."""
    await api.put("/v1/plans/free", json={"limits": []})
    file = {"version": 1, "clients": {"acme": {"plan": "free"}, "new": {"plan": "free"}}}
    for method, path, body in (
        ("put", "/v1/clients/acme", {"plan": "free"}),
        ("put", "/v1/config", file),
        ("put", "/v1/config", file),
    ):
        (await api.request(method, path, json=body)).raise_for_status()
        before = (await api.get("/v1/clients/acme")).json()["generation"]
        reset = await api.post("/v1/clients/acme/reset", json={})
        assert reset.json()["generation"] == before + 1
        (await api.delete("/v1/clients/acme")).raise_for_status()
    (change,) = await diff_of(api, await api.put("/v1/clients/acme", json={"plan": "free"}))
    assert change["after"]["generation"] == 3
    assert (await api.get("/v1/clients/new")).json()["generation"] == 0


async def test_overrides(api: httpx.AsyncClient) -> None:
    path = "/v1/clients/acme/overrides/hourly"
    made = await api.put(path, json={"limit": 5, "expires_at": SOON})
    assert made.status_code == 201, made.text
    (change,) = await diff_of(api, made)
    assert change["after"]["overrides"]["hourly"]["limit"] == 5
    assert (await api.get(path)).json() == made.json()
    assert (await api.put(path, json={"limit": 6})).json()["expires_at"] is None
    assert [item["limit"] for item in (await api.get("/v1/clients/acme/overrides")).json()["items"]] == [6]
    wrong = await api.put(path, json={"limit": 6, "burst": 3})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "burst")
    assert (await api.put("/v1/clients/acme/overrides/burst", json={"limit": 6, "burst": 3})).status_code == 201
    assert (await api.put("/v1/clients/acme/overrides/nope", json={"limit": 6})).status_code == 404
    assert (await api.delete(path)).status_code == 204
    assert (await api.delete(path)).status_code == 404
    assert (await api.delete("/v1/clients/acme")).status_code == 204


async def test_the_first_admin_token_is_stored_only_while_there_is_none(make_settings: Callable[..., Settings]) -> None:
    async with client_of(make_settings()) as first:
        assert (await first.get("/v1/plans")).status_code == 200
    async with client_of(make_settings(admin_token=SecretStr("another-admin-token")), "another-admin-token") as second:
        assert (await second.get("/v1/plans")).status_code == 401
