"""Every route is closed to whoever has no credential, a wrong one, or too weak a role."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI

from control_plane.app import create_app
from control_plane.settings import Settings
from tests.integration.control_plane.conftest import ADMIN_TOKEN, client_of
from tidegate.contract.credentials import make_credential
from tidegate.stack.postgres import PostgresServer

PUBLIC = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/{name}"}
EXAMPLES = {"key_id": "key_0123456789abcdef", "token_id": "tok_0123", "number": "1"}


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path that the application documents."""
    found = []
    for path, methods in app.openapi()["paths"].items():
        for part in path.split("/"):
            if part.startswith("{"):
                name = part.strip("{}")
                path = path.replace(part, EXAMPLES.get(name, "x1"))  # noqa: PLW2901
        found += [(method.upper(), path) for method in methods]
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def token_of(api: httpx.AsyncClient, role: str) -> str:
    secret: str = (await api.post("/v1/tokens", json={"name": role, "role": role})).json()["secret"]
    return secret


async def test_the_enumeration_sees_every_route(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings())
    paths = set(app.openapi()["paths"])
    assert {"/v1/plans/{plan}/limits/{limit}", "/v1/tokens", "/internal/v1/stream", "/internal/v1/acks"} <= paths
    assert len(operations(app)) >= 55
    assert paths & PUBLIC == {"/healthz", "/readyz", "/metrics"}


async def test_nothing_answers_without_a_credential_or_with_a_wrong_one(
    api: httpx.AsyncClient, make_settings: Callable[..., Settings]
) -> None:
    del api.headers["Authorization"]
    refused = 0
    for method, path in operations(create_app(make_settings())):
        if path in PUBLIC:
            assert (await api.request(method, path)).status_code == 200
            continue
        for headers in ({}, bearer("tga_wrong"), {"Authorization": "Basic eDp5"}, bearer("")):
            # not even the body's faults are told to strangers
            answer = await api.request(method, path, headers=headers, content=b"{not json")
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["status"] == 401
            refused += 1
    assert refused > 200


async def test_roles_on_every_route(api: httpx.AsyncClient, make_settings: Callable[..., Settings]) -> None:
    tokens = {role: await token_of(api, role) for role in ("viewer", "operator", "gateway")}
    await api.put("/v1/regions/us-east", json={})
    tokens["region"] = (await api.post("/v1/regions/us-east/credentials")).json()["credential"]

    async def status(role: str, method: str, path: str) -> int:
        # an unknown field: whoever may write gets no further than 422
        body = {"unknown": 1} if method in {"POST", "PUT"} else None
        return (await api.request(method, path, json=body, headers=bearer(tokens[role]))).status_code

    for method, path in operations(create_app(make_settings())):
        if path in PUBLIC:
            continue
        if path.startswith("/internal/"):
            assert await status("viewer", method, path) == 401, path
            # let in: what asks for nothing is answered, the rest gets no further than its unknown field
            assert await status("region", method, path) in {200, 422}, path
            continue
        admin_only = path.startswith("/v1/tokens") or path == "/v1/regions/x1/credentials"
        assert await status("region", method, path) == 401, path
        assert await status("gateway", method, path) == 403, path
        asks = method == "GET" or path.endswith(("/what-if", "/config/diff", "/console/links"))
        may_view = asks and not admin_only
        assert (await status("viewer", method, path) == 403) == (not may_view), (method, path)
        assert (await status("operator", method, path) == 403) == admin_only, (method, path)


async def test_an_operator_cannot_set_a_regions_credential(api: httpx.AsyncClient) -> None:
    operator = bearer(await token_of(api, "operator"))
    credential = make_credential("region", bytes(32))
    refused = await api.put("/v1/regions/r", json={"credential": credential}, headers=operator)
    assert refused.status_code == 403
    assert (await api.put("/v1/regions/r", json={}, headers=operator)).status_code == 201
    wrong = await api.put("/v1/regions/r", json={"credential": credential + "x"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "credential")
    assert credential not in wrong.text


async def test_a_regions_new_credential_replaces_the_old(api: httpx.AsyncClient) -> None:
    await api.put("/v1/regions/r", json={})
    first, second = [(await api.post("/v1/regions/r/credentials")).json() for _ in range(2)]
    ack = {"node": "n", "revision": 0, "digest": "0" * 64}
    assert (await api.post("/internal/v1/acks", json=ack, headers=bearer(first["credential"]))).status_code == 401
    assert (await api.post("/internal/v1/acks", json=ack, headers=bearer(second["credential"]))).status_code == 422
    shown = (await api.get("/v1/regions/r")).json()
    assert shown["public_key"] == second["public_key"] != first["public_key"]


async def test_tokens_expire_and_are_revoked(
    api: httpx.AsyncClient, postgres_server: PostgresServer, database_name: str
) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    brief = (await api.post("/v1/tokens", json={"name": "brief", "role": "viewer", "expires_at": later})).json()
    assert (await api.get("/v1/plans", headers=bearer(brief["secret"]))).status_code == 200
    # the row is moved instead of the clock: a token that lives for moments is gone before a slow machine asks
    moved = f"UPDATE tokens SET expires_at = now() - interval '1 second' WHERE token_id = '{brief['token_id']}'"
    await asyncio.to_thread(postgres_server.execute, moved, database=database_name)
    assert (await api.get("/v1/plans", headers=bearer(brief["secret"]))).status_code == 401
    # a new secret would not work either
    assert (await api.post(f"/v1/tokens/{brief['token_id']}/rotate", json={})).status_code == 404

    made = (await api.post("/v1/tokens", json={"name": "ops", "role": "admin"})).json()
    listed = await api.get("/v1/tokens")
    assert made["secret"] not in listed.text
    assert {item["name"] for item in listed.json()["items"]} == {"first-admin", "brief", "ops"}
    assert (await api.post("/v1/tokens", json={"name": "ops", "role": "viewer"})).status_code == 409
    path = f"/v1/tokens/{made['token_id']}"
    assert (await api.delete("/v1/tokens/tok_first", headers=bearer(made["secret"]))).status_code == 204
    assert (await api.get("/v1/plans")).status_code == 401
    last = await api.delete(path, headers=bearer(made["secret"]))
    assert last.status_code == 409
    assert "last admin" in last.json()["detail"]


async def test_a_gateways_token_reaches_the_nodes_as_its_hash(api: httpx.AsyncClient) -> None:
    made = await api.post("/v1/tokens", json={"name": "edge", "role": "gateway", "dialect": "envoy"})
    revision = made.headers["x-tidegate-revision"]
    (change,) = (await api.get(f"/v1/revisions/{revision}/diff")).json()["changes"]
    assert (change["kind"], change["id"], change["after"]) == (
        "gateway",
        "edge",
        {"gateway": "edge", "dialect": "envoy"},
    )
    gone = await api.delete(f"/v1/tokens/{made.json()['token_id']}")
    assert int(gone.headers["x-tidegate-revision"]) == int(revision) + 1
    wrong = await api.post("/v1/tokens", json={"name": "x", "role": "viewer", "dialect": "envoy"})
    assert wrong.status_code == 422


async def test_an_admin_that_expires_is_not_the_last(api: httpx.AsyncClient) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    brief = (await api.post("/v1/tokens", json={"name": "brief", "role": "admin", "expires_at": later})).json()
    refused = await api.delete("/v1/tokens/tok_first")
    assert refused.status_code == 409
    assert "does not expire" in refused.json()["detail"]
    await api.post("/v1/tokens", json={"name": "lasting", "role": "admin"})
    assert (await api.delete("/v1/tokens/tok_first", headers=bearer(brief["secret"]))).status_code == 204


async def test_a_large_body_is_not_read_for_who_may_not_write(api: httpx.AsyncClient) -> None:
    tokens = {role: await token_of(api, role) for role in ("viewer", "gateway", "operator")}
    part = b" " * 65_536

    async def put(role: str) -> tuple[int, int]:
        read = 0

        async def large() -> AsyncIterator[bytes]:
            nonlocal read
            for _ in range(32):
                read += 1
                yield part

        answer = await api.put("/v1/config", content=large(), headers=bearer(tokens[role]))
        return answer.status_code, read

    assert await put("viewer") == (403, 0)
    assert await put("gateway") == (403, 0)
    assert await put("operator") == (422, 32)
    assert (await api.get("/v1/config", headers=bearer(tokens["viewer"]))).status_code == 200


@pytest.mark.parametrize("path", ["/v1/plans", "/internal/v1/acks"])
async def test_too_many_wrong_credentials_shut_the_address_out(
    make_settings: Callable[..., Settings], path: str
) -> None:
    async with client_of(make_settings(max_failed_authentications=3)) as api:
        statuses = [(await api.request("POST", path, headers=bearer("tga_wrong"))).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        blocked = await api.post(path, headers=bearer("tga_wrong and more"))
        assert blocked.status_code == 429
        assert 1 <= int(blocked.headers["retry-after"]) <= 60
        assert (await api.post(path, headers=bearer("another one"))).status_code == 401
        # whoever shares the address with one that guesses, and how the credential begins, gets in all the same
        guesses = [(await api.post(path, headers=bearer(ADMIN_TOKEN[:8] + "x"))).status_code for _ in range(5)]
        assert guesses == [401, 401, 401, 429, 429]
        assert (await api.post("/v1/plans", json={})).status_code == 422
        # a request without any credential guesses nothing
        assert (await api.post(path, headers={"Authorization": ""})).status_code == 401
