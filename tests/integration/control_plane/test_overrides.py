"""Overrides: a temporary one stands before a lasting one; neither outlives the limit that it is of."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.integration.control_plane.conftest import DATABASE
from tidegate.stack.postgres import PostgresServer

SOON = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
HOURLY = {"name": "hourly", "limit": 100, "window_s": 3600, "algorithm": "token_bucket"}
DAILY = {"name": "daily", "limit": 1000, "window_s": 86_400}
PATH = "/v1/clients/acme/overrides/hourly"


@pytest.fixture
async def api(api: httpx.AsyncClient) -> httpx.AsyncClient:
    """With a client whose plan has an hourly limit, and another plan that has none."""
    await api.put("/v1/plans/free", json={"limits": [HOURLY, DAILY]})
    await api.put("/v1/plans/pro", json={"limits": [DAILY]})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    return api


async def put(api: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await api.put(PATH, json=body)
    assert answer.status_code in {200, 201}, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def document(api: httpx.AsyncClient) -> dict[str, Any]:
    """The client's document as the newest revision changed it."""
    newest = (await api.get("/v1/revisions?limit=1")).json()["items"][0]["revision"]
    changes = (await api.get(f"/v1/revisions/{newest}/diff")).json()["changes"]
    found: dict[str, Any] = next(change["after"] for change in changes if change["kind"] == "client")
    return found


async def names(api: httpx.AsyncClient) -> list[str]:
    return [item["limit_name"] for item in (await api.get("/v1/clients/acme/overrides")).json()["items"]]


async def test_a_temporary_override_stands_before_a_lasting_one(
    api: httpx.AsyncClient, postgres_server: PostgresServer
) -> None:
    await put(api, limit=500, burst=7)
    brief = await put(api, limit=5_000, expires_at=SOON)
    assert (brief["limit"], brief["burst"], brief["then"]) == (5_000, None, {"limit": 500, "burst": 7})
    override = (await document(api))["overrides"]["hourly"]
    assert (override["limit"], override["then"]) == (5_000, {"limit": 500, "burst": 7})
    longer = await put(api, limit=6_000, expires_at=SOON)
    assert longer["then"] == {"limit": 500, "burst": 7}
    # the file says what lasts, and an apply changes that alone
    exported = (await api.get("/v1/config?sections=clients")).json()
    assert exported["clients"]["acme"]["overrides"] == {"hourly": {"limit": 500, "burst": 7}}
    exported["clients"]["acme"]["overrides"] = {"hourly": 600}
    assert (await api.put("/v1/config", json=exported)).json()["counts"] == {"clients": {"update": 1}}
    shown = (await api.get(PATH)).json()
    assert (shown["limit"], shown["then"]) == (6_000, {"limit": 600, "burst": None})
    assert (await api.put("/v1/config?dry_run=true", json=exported)).json()["counts"] == {}

    await asyncio.to_thread(
        postgres_server.execute, "UPDATE overrides SET expires_at = now() - interval '1 second'", database=DATABASE
    )
    expired = await api.post("/v1/jobs/expiry/run", headers={"Prefer": "wait=20"})
    assert expired.json()["last_outcome"] == "done", expired.text
    shown = (await api.get(PATH)).json()
    assert (shown["limit"], shown["expires_at"], shown["then"]) == (600, None, None)
    assert (await document(api))["overrides"] == {"hourly": {"limit": 600}}


async def test_a_lasting_override_ends_a_temporary_one(api: httpx.AsyncClient, postgres_server: PostgresServer) -> None:
    assert (await put(api, limit=5_000, expires_at=SOON))["then"] is None
    assert (await put(api, limit=500))["expires_at"] is None
    await put(api, limit=5_000, expires_at=SOON)
    assert (await api.delete(PATH)).status_code == 204
    assert (await api.get(PATH)).status_code == 404
    # without a lasting one the plan's figures come back
    await put(api, limit=5_000, expires_at=SOON)
    await asyncio.to_thread(
        postgres_server.execute, "UPDATE overrides SET expires_at = now() - interval '1 second'", database=DATABASE
    )
    await api.post("/v1/jobs/expiry/run", headers={"Prefer": "wait=20"})
    assert await names(api) == []


MOVES: dict[str, tuple[str, str, Any]] = {
    "put": ("PUT", "/v1/clients/acme", {"plan": "pro"}),
    "file": ("PUT", "/v1/config", {"version": 1, "clients": {"acme": {"plan": "pro"}}}),
    "import": ("POST", "/v1/clients/import", {"client": "acme", "plan": "pro"}),
    "limit": ("DELETE", "/v1/plans/free/limits/hourly", None),
    "plan": ("PUT", "/v1/plans/free", {"limits": [DAILY]}),
    "algorithm": ("PUT", "/v1/plans/free", {"limits": [HOURLY | {"algorithm": "fixed_window"}, DAILY]}),
    "file's plan": (
        "PUT",
        "/v1/config",
        {"version": 1, "plans": {"free": {"limits": {"daily": {"limit": "1000/day"}}}, "pro": {}}},
    ),
}


@pytest.mark.parametrize("how", MOVES)
async def test_an_override_goes_with_its_limit_and_an_export_applies_elsewhere(
    api: httpx.AsyncClient, how: str
) -> None:
    await put(api, limit=500, burst=7)
    await put(api, limit=5_000, burst=9, expires_at=SOON)
    await api.put("/v1/clients/acme/overrides/daily", json={"limit": 5})
    method, path, body = MOVES[how]
    moved = await api.request(method, path, json=body)
    assert moved.is_success, moved.text
    assert await names(api) == ["daily"]
    assert (await document(api))["overrides"] == {"daily": {"limit": 5}}
    (entry,) = (await api.get("/v1/audit?resource=client&name=acme&limit=1")).json()["items"]
    assert (set(entry["before"]["overrides"]), set(entry["after"]["overrides"])) == ({"daily", "hourly"}, {"daily"})
    drift = await api.post("/v1/jobs/drift-check/run", headers={"Prefer": "wait=20"})
    assert drift.json()["last_outcome"] == "done", drift.text
    exported = (await api.get("/v1/config")).json()
    for gone in ("/v1/clients/acme", "/v1/plans/free", "/v1/plans/pro"):
        assert (await api.delete(gone)).status_code == 204
    applied = await api.put("/v1/config", json=exported)
    assert applied.status_code == 200, applied.text
    assert await names(api) == ["daily"]


FIXED = HOURLY | {"algorithm": "fixed_window"}
"""It takes no burst."""
TO_FIXED: dict[str, tuple[str, str, Any]] = {
    "put": ("PUT", "/v1/clients/acme", {"plan": "team"}),
    "file": ("PUT", "/v1/config", {"version": 1, "clients": {"acme": {"plan": "team"}}}),
    "import": ("POST", "/v1/clients/import", {"client": "acme", "plan": "team"}),
    "plan": ("PUT", "/v1/plans/free", {"limits": [FIXED, DAILY]}),
    "limit": ("PUT", "/v1/plans/free/limits/hourly", FIXED),
    "file's plan": ("PUT", "/v1/config", {"version": 1, "plans": {"free": {"limits": {"hourly": {"limit": "100/h"}}}}}),
}


@pytest.mark.parametrize("how", TO_FIXED)
@pytest.mark.parametrize(
    ("lasting", "temporary", "left"),
    [
        ({"limit": 500}, {"limit": 5_000, "burst": 9}, {"limit": 500}),
        ({"limit": 500, "burst": 7}, {"limit": 5_000}, {"limit": 5_000, "expires_at": SOON}),
    ],
    ids=["what lasts", "what is for a while"],
)
async def test_what_is_sound_of_an_override_stays(
    api: httpx.AsyncClient, how: str, lasting: dict[str, Any], temporary: dict[str, Any], left: dict[str, Any]
) -> None:
    await api.put("/v1/plans/team", json={"limits": [FIXED]})
    await put(api, **lasting)
    await put(api, **temporary, expires_at=SOON)
    method, path, body = TO_FIXED[how]
    moved = await api.request(method, path, json=body)
    assert moved.is_success, moved.text
    shown = (await api.get(PATH)).json()
    assert (shown["limit"], shown["burst"], shown["then"]) == (left["limit"], None, None)
    ends = shown["expires_at"] and datetime.fromisoformat(shown["expires_at"]).isoformat()
    assert ends == left.get("expires_at")
    published = (await document(api))["overrides"]["hourly"]
    assert (published["limit"], "expires_at" in published, "then" in published) == (
        left["limit"], "expires_at" in left, False
    )  # fmt: skip
    (entry,) = (await api.get("/v1/audit?resource=client&name=acme&limit=1")).json()["items"]
    assert entry["after"]["overrides"]["hourly"]["then"] is None
    drift = await api.post("/v1/jobs/drift-check/run", headers={"Prefer": "wait=20"})
    assert drift.json()["last_outcome"] == "done", drift.text


async def test_a_switch_goes_with_its_limit(api: httpx.AsyncClient) -> None:
    outside = {"limit": 5, "window_s": 1, "scope": "ip"}
    await api.put("/v1/limits/out", json=outside)
    targets = ["/v1/enforcement/free/hourly", "/v1/enforcement/pro/daily", "/v1/enforcement/out"]
    for target in (*targets, "/v1/enforcement", "/v1/enforcement/free/daily"):
        assert (await api.put(target, json={"mode": "shadow"})).status_code == 201
    for gone in ("/v1/plans/free/limits/hourly", "/v1/plans/pro", "/v1/limits/out"):
        assert (await api.delete(gone)).status_code == 204
        (entry,) = (await api.get("/v1/audit?resource=switch&limit=1")).json()["items"]
        assert (entry["action"], entry["after"]) == ("delete", None)
    await api.put("/v1/plans/free", json={"limits": [HOURLY, DAILY]})
    await api.put("/v1/plans/pro", json={"limits": [DAILY]})
    await api.put("/v1/limits/out", json=outside)
    for target in targets:
        assert (await api.get(target)).status_code == 404
    left = [item["target"] for item in (await api.get("/v1/enforcement")).json()["items"]]
    assert left == ["*", "free/daily"]


async def test_an_override_is_divided_as_its_limit_is(api: httpx.AsyncClient) -> None:
    for region in ("eu", "us"):
        await api.put(f"/v1/regions/{region}", json={})
    await api.put("/v1/plans/free", json={"limits": [HOURLY | {"mode": "strict"}, DAILY]})
    await api.put("/v1/quotas/free/hourly", json={"shares": {"eu": 0.75, "us": 0.25}})
    refused = await api.put(PATH, json={"limit": 8, "shares": {"eu": 1.0}})
    assert (refused.status_code, [one["field"] for one in refused.json()["errors"]]) == (422, ["shares"])
    await put(api, limit=8)
    assert "shares" not in await document(api)
    (shown,) = (await api.get("/v1/clients/acme/limits")).json()["limits"][:1]
    assert (shown["shares"], shown["shares_from"], shown["move"]) == ({"eu": 6, "us": 2}, "limit", None)
