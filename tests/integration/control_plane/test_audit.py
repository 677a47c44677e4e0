"""The audit log: every write is in it with who, what and why, no secret is, and nobody can change it."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from control_plane.credentials.tokens.last_used import LastUsed
from control_plane.settings import Settings
from tests.integration.control_plane.conftest import ADMIN_TOKEN, DATABASE, client_of
from tidegate.stack.postgres import PostgresServer
from tidegate.stack.progress import StackError


async def test_every_kind_of_write_leaves_an_entry(api: httpx.AsyncClient) -> None:
    reason = {"X-Tidegate-Reason": "because", "X-Request-Id": "req-1"}
    await api.put("/v1/plans/free", json={"limits": [{"name": "a", "limit": 5, "window_s": 1}]}, headers=reason)
    await api.put("/v1/plans/free/limits/a", json={"limit": 6, "window_s": 1})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    await api.put("/v1/clients/acme/overrides/a", json={"limit": 9})
    key = (await api.post("/v1/clients/acme/keys", json={})).json()
    await api.delete(f"/v1/clients/acme/keys/{key['key_id']}")
    await api.post("/v1/clients/acme/reset", json={})
    await api.put("/v1/regions/us-east", json={})
    region = (await api.post("/v1/regions/us-east/credentials")).json()
    token = (await api.post("/v1/tokens", json={"name": "ops", "role": "operator"})).json()
    await api.delete("/v1/clients/acme")
    answer = await api.get("/v1/audit", params={"limit": 1000})
    entries = answer.json()["items"][::-1]
    assert [(entry["action"], entry["resource"], entry["name"]) for entry in entries] == [
        ("create", "token", "tok_first"),
        ("create", "plan", "free"),
        ("update", "plan", "free"),
        ("create", "client", "acme"),
        ("update", "client", "acme"),
        ("create", "key", f"acme/{key['key_id']}"),
        ("revoke", "key", f"acme/{key['key_id']}"),
        ("reset", "client", "acme"),
        ("create", "region", "us-east"),
        ("rotate", "region", "us-east"),
        ("create", "token", token["token_id"]),
        ("delete", "client", "acme"),
    ]
    first = entries[1]
    assert (first["author"], first["role"], first["reason"], first["request_id"]) == (
        "first-admin",
        "admin",
        "because",
        "req-1",
    )
    assert (first["before"], first["after"]["limits"][0]["limit"], first["revision"]) == (None, 5, 1)
    assert entries[2]["before"]["limits"][0]["limit"] == 5
    assert entries[4]["after"]["overrides"]["a"]["limit"] == 9
    for secret in (key["secret"], region["credential"], token["secret"], ADMIN_TOKEN):
        assert secret not in answer.text
    assert "sha256" not in answer.text


async def test_it_is_filtered_and_paged(api: httpx.AsyncClient) -> None:
    before = datetime.now(UTC)
    for name in ("a", "b", "c"):
        await api.put(f"/v1/plans/{name}", json={})
    await api.delete("/v1/plans/b")

    async def found(**params: str) -> list[str]:
        page = (await api.get("/v1/audit", params={"resource": "plan", **params})).json()
        return [item["name"] for item in page["items"]]

    assert await found() == ["b", "c", "b", "a"]
    assert await found(action="delete") == ["b"]
    assert await found(name="a", author="first-admin") == ["a"]
    assert await found(author="nobody") == []
    assert await found(since=(before + timedelta(hours=1)).isoformat()) == []
    assert await found(until=before.isoformat()) == []
    assert await found(revision="3") == ["c"]
    page = (await api.get("/v1/audit", params={"resource": "plan", "limit": 3})).json()
    rest = (await api.get("/v1/audit", params={"resource": "plan", "cursor": page["next_cursor"]})).json()
    assert [item["name"] for item in rest["items"]] == ["a"]
    one = rest["items"][0]
    assert (await api.get(f"/v1/audit/{one['id']}")).json() == one
    assert (await api.get("/v1/audit/999999999")).status_code == 404


async def test_entries_about_tokens_are_for_admins(api: httpx.AsyncClient) -> None:
    viewer = (await api.post("/v1/tokens", json={"name": "v", "role": "viewer"})).json()["secret"]
    await api.put("/v1/plans/a", json={})
    shown = await api.get("/v1/audit", headers={"Authorization": f"Bearer {viewer}"})
    assert [item["resource"] for item in shown.json()["items"]] == ["plan"]
    (token,) = (await api.get("/v1/audit", params={"resource": "token", "limit": 1})).json()["items"]
    hidden = await api.get(f"/v1/audit/{token['id']}", headers={"Authorization": f"Bearer {viewer}"})
    assert hidden.status_code == 404


CHANGES = [
    "UPDATE audit_log SET author = 'nobody'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "SELECT audit_log_retain(now(), 10)",
    "DO $$ BEGIN DELETE FROM audit_log; END $$",
]


async def test_the_database_refuses_to_change_it(api: httpx.AsyncClient, postgres_server: PostgresServer) -> None:
    await api.put("/v1/plans/a", json={})
    for statement in CHANGES:
        with pytest.raises(StackError, match=r"append-only|at least 30 days"):
            await asyncio.to_thread(postgres_server.execute, statement, database=DATABASE)
        assert len((await api.get("/v1/audit")).json()["items"]) == 2, statement
    assert (await api.delete("/v1/audit/1")).status_code == 405


async def test_only_retention_shortens_it(api: httpx.AsyncClient, postgres_server: PostgresServer) -> None:
    old = "INSERT INTO audit_log (at, author, action, resource, name, revision) "
    old += "VALUES (now() - interval '400 days', 'x', 'create', 'plan', 'old', 1)"
    await asyncio.to_thread(postgres_server.execute, old, database=DATABASE)
    kept = "SELECT audit_log_retain(now() - interval '365 days', 100)"
    assert postgres_server.execute(kept, database=DATABASE) == "1"
    assert [item["name"] for item in (await api.get("/v1/audit")).json()["items"]] == ["tok_first"]


async def test_a_failed_write_leaves_no_entry(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/a", json={})
    await api.put("/v1/clients/acme", json={"plan": "a"})
    count = len((await api.get("/v1/audit")).json()["items"])
    assert (await api.delete("/v1/plans/a")).status_code == 409
    assert (await api.put("/v1/plans/a", json={})).status_code == 200
    assert len((await api.get("/v1/audit")).json()["items"]) == count


async def test_a_post_sent_again_is_answered_again(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    made = await api.post("/v1/plans", json={"plan": "a"}, headers=key)
    again = await api.post("/v1/plans", json={"plan": "a"}, headers=key)
    assert (again.status_code, again.content) == (201, made.content)
    for name in ("etag", "location", "x-tidegate-revision", "content-type"):
        assert again.headers[name] == made.headers[name]
    assert len((await api.get("/v1/revisions")).json()["items"]) == 1
    other = await api.post("/v1/plans", json={"plan": "b"}, headers=key)
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    failed = await api.post("/v1/clients", json={"client": "c", "plan": "none"}, headers={"Idempotency-Key": "two"})
    assert failed.status_code == 422
    retried = await api.post("/v1/clients", json={"client": "c", "plan": "a"}, headers={"Idempotency-Key": "two"})
    assert retried.status_code == 201
    token = {"Idempotency-Key": "three"}
    first = await api.post("/v1/tokens", json={"name": "t", "role": "viewer"}, headers=token)
    replayed = await api.post("/v1/tokens", json={"name": "t", "role": "viewer"}, headers=token)
    assert (replayed.status_code, replayed.json()["token_id"]) == (409, first.json()["token_id"])
    assert first.json()["secret"] not in replayed.text


async def test_rotation_overlaps(api: httpx.AsyncClient) -> None:
    def bearer(secret: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret}"}

    made = (await api.post("/v1/tokens", json={"name": "ops", "role": "viewer"})).json()
    path = f"/v1/tokens/{made['token_id']}"
    second = (await api.post(f"{path}/rotate", json={"overlap_s": 600})).json()
    for secret in (made["secret"], second["secret"]):
        assert (await api.get("/v1/plans", headers=bearer(secret))).status_code == 200
    third = (await api.post(f"{path}/rotate", json={})).json()
    assert (await api.get("/v1/plans", headers=bearer(third["secret"]))).status_code == 200
    for secret in (made["secret"], second["secret"]):
        assert (await api.get("/v1/plans", headers=bearer(secret))).status_code == 401

    gateway = (await api.post("/v1/tokens", json={"name": "edge", "role": "gateway", "dialect": "envoy"})).json()
    rotated = await api.post(f"/v1/tokens/{gateway['token_id']}/rotate", json={"overlap_s": 60})
    revision = rotated.headers["x-tidegate-revision"]
    changes = (await api.get(f"/v1/revisions/{revision}/diff")).json()["changes"]
    assert {(item["id"], item["after"].get("expires_at") is not None) for item in changes} == {
        ("edge", False),
        ("edge/previous", True),
    }

    await api.put("/v1/regions/r", json={})
    one, two = [(await api.post("/v1/regions/r/credentials", json={"overlap_s": 600})).json() for _ in range(2)]
    ack = {"node": "n", "revision": 0, "digest": "0" * 64}
    for credential in (one["credential"], two["credential"]):
        answer = await api.post("/internal/v1/acks", json=ack, headers=bearer(credential))
        assert answer.status_code == 422
    assert (await api.get("/v1/regions/r")).json()["public_keys"] == [two["public_key"], one["public_key"]]

    await api.put("/v1/plans/free", json={})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    key = (await api.post("/v1/clients/acme/keys", json={"name": "ci"})).json()
    new = await api.post(f"/v1/clients/acme/keys/{key['key_id']}/rotate", json={"overlap_s": 60})
    assert new.status_code == 201
    assert (new.json()["name"], new.json()["secret"] != key["secret"]) == ("ci", True)
    old = (await api.get(f"/v1/clients/acme/keys/{key['key_id']}")).json()
    assert old["expires_at"] is not None
    await api.post(f"/v1/clients/acme/keys/{new.json()['key_id']}/rotate", json={})
    assert (await api.get(f"/v1/clients/acme/keys/{new.json()['key_id']}")).status_code == 404


async def test_when_a_token_was_used_is_written_in_one_go(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[LastUsed] = []
    monkeypatch.setattr("control_plane.app.LastUsed", lambda: noted.append(LastUsed()) or noted[-1])
    async with client_of(make_settings()) as api:
        (token,) = (await api.get("/v1/tokens")).json()["items"]
        assert token["last_used"] is None
        tag = (await api.get("/v1/tokens/tok_first")).headers["etag"]
    async with client_of(make_settings()) as api:
        # written when the one before shut down
        shown = await api.get("/v1/tokens/tok_first")
        assert shown.json()["last_used"] is not None
        assert shown.headers["etag"] == tag
    assert json.dumps(len(noted)) == "2"
