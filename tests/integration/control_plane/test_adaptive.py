"""Adaptive policies, backends under them, reporters' credentials, manual factors, and what regions report upward."""

import time
from typing import Any

import httpx
import pytest

from testing.control_plane import RunningControlPlane
from tidegate.contract.credentials import credential_kind, secret_sha256

IN_FUTURE = "2100-01-01T00:00:00Z"


@pytest.fixture
async def users(api: httpx.AsyncClient) -> str:
    """A backend with a capacity, under a policy."""
    (await api.put("/v1/adaptive-policies/protect", json={})).raise_for_status()
    body = {"capacity": {"limit": 2000}, "adaptive": "protect"}
    (await api.put("/v1/backends/users", json=body)).raise_for_status()
    return "/v1/backends/users"


def faults(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 422, answer.text
    return {error["field"] for error in answer.json()["errors"]}


BAD_POLICIES = [
    ({"target": 0}, "target"),
    ({"hysteresis": 0.5, "target": 0.4}, "hysteresis"),
    ({"signals": {"memory": 1}}, "signals.memory"),
    ({"signals": {"cpu": 0}}, "signals.cpu"),
    ({"signals": {}}, "signals"),
    ({"reserve": 0.2}, "reserve"),
    ({"steps": [{"above": 0.6, "factor": 0.5}, {"above": 0.8, "factor": 0.75}]}, "steps[1]"),
    ({"steps": [{"above": 0.6, "factor": 1}]}, "steps[0].factor"),
    ({"min_reporters": 0}, "min_reporters"),
    ({"speed": 1}, "speed"),
]


async def test_a_bad_policy_names_the_field(api: httpx.AsyncClient) -> None:
    for body, field in BAD_POLICIES:
        named = faults(await api.put("/v1/adaptive-policies/protect", json=body))
        assert any(name.startswith(field) for name in named), (body, named)


BAD_BACKENDS = [
    ({"adaptive": "nothing"}, "adaptive"),
    ({"capacity": {"limit": 0}}, "capacity.limit"),
    ({"capacity": {"limit": 10, "window_s": 0.0001}}, "capacity.window_s"),
    ({"pulls": [{"server": "http://10.0.0.1/", "signal": "cpu", "query": "up"}]}, "pulls[0].server"),
    ({"pulls": [{"server": "main", "signal": "cpu", "query": ""}]}, "pulls[0].query"),
]


async def test_a_bad_backend_names_the_field(api: httpx.AsyncClient) -> None:
    for body, field in BAD_BACKENDS:
        assert field in faults(await api.put("/v1/backends/users", json=body)), body


async def test_a_limit_names_a_policy_that_exists(api: httpx.AsyncClient, users: str) -> None:
    limit = {"scope": "ip", "limit": 5, "window_s": 1, "adaptive": "nothing"}
    assert faults(await api.put("/v1/limits/per-ip", json=limit)) == {"adaptive"}
    (await api.put("/v1/limits/per-ip", json=limit | {"adaptive": "protect"})).raise_for_status()
    answer = await api.delete("/v1/adaptive-policies/protect")
    assert answer.status_code == 409, "a limit and a backend name it"


async def test_a_backends_capacity_keeps_its_state_when_it_changes(served: RunningControlPlane) -> None:
    async with served.node().following() as node:
        (await served.admin.put("/v1/adaptive-policies/protect", json={})).raise_for_status()
        made = await served.admin.put("/v1/backends/users", json={"capacity": {"limit": 100}, "adaptive": "protect"})
        await node.until(int(made.headers["x-tidegate-revision"]))
        first = node.document("backend", "users")
        changed = await served.admin.put("/v1/backends/users", json={"capacity": {"limit": 50, "burst": 5}})
        await node.until(int(changed.headers["x-tidegate-revision"]))
        second = node.document("backend", "users")
    assert node.document("adaptive_policy", "protect") == {"policy": "protect"}, "defaults are not sent"
    assert first["adaptive"] == "protect"
    assert first["capacity"] == {**first["capacity"], "limit": 100, "window_us": 1_000_000}
    assert first["capacity"]["id"] != first["capacity"]["open_id"]
    assert second["capacity"] == {
        "id": first["capacity"]["id"], "open_id": first["capacity"]["open_id"],
        "limit": 50, "window_us": 1_000_000, "burst": 5,
    }  # fmt: skip


async def test_a_reporters_secret_is_shown_once_and_never_rests(api: httpx.AsyncClient, users: str) -> None:
    made = await api.post("/v1/reporters", json={"reporter": "lb-1", "backends": ["users"]})
    assert made.status_code == 201, made.text
    secret = made.json()["secret"]
    assert credential_kind(secret) == "reporter"
    assert made.headers["cache-control"] == "no-store"
    read = (await api.get("/v1/reporters/lb-1")).json()
    assert read["backends"] == ["users"]
    revision = made.headers["x-tidegate-revision"]
    diff = (await api.get(f"/v1/revisions/{revision}/diff")).text
    for text in (diff, str(read), (await api.get("/v1/reporters")).text):
        assert secret not in text
        assert secret_sha256(secret) not in text
    assert (await api.delete(users)).status_code == 409, "a reporter speaks for it"
    assert (await api.post("/v1/reporters", json={"reporter": "lb-1", "backends": ["users"]})).status_code == 409


async def test_a_reporter_speaks_for_backends_that_exist(api: httpx.AsyncClient, users: str) -> None:
    wrong = {"reporter": "lb-1", "backends": ["users", "none"]}
    assert faults(await api.post("/v1/reporters", json=wrong)) == {"backends[1]"}
    (await api.post("/v1/reporters", json={"reporter": "lb-1", "backends": ["users"]})).raise_for_status()
    assert faults(await api.put("/v1/reporters/lb-1", json={"backends": ["users", "users"]})) == {"backends"}
    assert (await api.put("/v1/reporters/lb-2", json={"backends": ["users"]})).status_code == 404


async def test_a_rotated_credential_overlaps(served: RunningControlPlane) -> None:
    async with served.node().following() as node:
        (await served.admin.put("/v1/backends/users", json={})).raise_for_status()
        body = {"reporter": "lb-1", "backends": ["users"]}
        old = (await served.admin.post("/v1/reporters", json=body)).raise_for_status().json()["secret"]
        rotated = await served.admin.post("/v1/reporters/lb-1/credentials", json={"overlap_s": 60})
        await node.until(int(rotated.headers["x-tidegate-revision"]))
        document = node.document("reporter", "lb-1")
    assert document["sha256"] == secret_sha256(rotated.json()["secret"])
    assert document["previous_sha256"] == secret_sha256(old)
    assert 0 < document["previous_expires_at"] - time.time() <= 60
    entries = (await served.admin.get("/v1/audit", params={"resource": "reporter"})).json()["items"]
    assert [entry["action"] for entry in entries] == ["rotate", "create"]


async def test_a_manual_factor_is_set_shown_and_ended(served: RunningControlPlane) -> None:
    async with served.node().following() as node:
        (await served.admin.put("/v1/adaptive-policies/protect", json={})).raise_for_status()
        under = {"adaptive": "protect"}
        made = await served.admin.put("/v1/backends/users", json=under)
        tag = made.headers["etag"]
        url = "/v1/backends/users/factor"
        assert (await served.admin.get(url)).status_code == 404
        late = {"factor": 0.5, "expires_at": "2001-01-01T00:00:00Z"}
        assert faults(await served.admin.put(url, json=late)) == {"expires_at"}
        assert faults(await served.admin.put(url, json={"factor": 1.5, "expires_at": IN_FUTURE})) == {"factor"}
        put = await served.admin.put(url, json={"factor": 0.5, "expires_at": IN_FUTURE, "reason": "disk is full"})
        await node.until(int(put.headers["x-tidegate-revision"]))
        assert node.document("backend", "users")["manual"]["factor"] == 0.5
        read = await served.admin.get("/v1/backends/users")
        assert read.json()["manual"]["reason"] == "disk is full"
        assert read.headers["etag"] == tag, "runtime state holds up no writer"
        unchanged = await served.admin.put("/v1/backends/users", json=under, headers={"If-Match": tag})
        assert unchanged.json()["manual"]["factor"] == 0.5, "a write of the backend leaves it"
        ended = await served.admin.delete(url)
        await node.until(int(ended.headers["x-tidegate-revision"]))
        assert "manual" not in node.document("backend", "users")


async def test_no_factor_without_a_policy_that_applies_it(served: RunningControlPlane) -> None:
    url, factor = "/v1/backends/users/factor", {"factor": 0.5, "expires_at": IN_FUTURE}
    async with served.node().following() as node:
        (await served.admin.put("/v1/backends/users", json={})).raise_for_status()
        refused = await served.admin.put(url, json=factor)
        assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
        assert "no adaptive policy" in refused.json()["detail"]
        (await served.admin.put("/v1/adaptive-policies/protect", json={})).raise_for_status()
        (await served.admin.put("/v1/backends/users", json={"adaptive": "protect"})).raise_for_status()
        (await served.admin.put(url, json=factor)).raise_for_status()
        alone = await served.admin.put("/v1/backends/users", json={})
        assert alone.json()["manual"] is None, "it goes with its policy"
        await node.until(int(alone.headers["x-tidegate-revision"]))
        assert "manual" not in node.document("backend", "users")


def load(backend: str, **members: Any) -> dict[str, Any]:
    now = time.time()
    known = {
        "backend": backend, "policy": "protect", "factor": 0.5, "reason": "cut", "since": now - 3, "decided_at": now,
        "decided_by": "node-1", "signal": "cpu", "load": 0.93, "reporters": 3,
        "classes": [{"priority": 0, "factor": 0.0, "offered_per_s": 120.0}],
    }  # fmt: skip
    return known | members


async def report(served: RunningControlPlane, body: Any, credential: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {credential or served.credentials['us-east']}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False) as region:
        return await region.post("/internal/v1/load", json=body)


@pytest.fixture
def _remembered_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.app.NODES_REMEMBERED_S", 60.0)


@pytest.mark.usefixtures("_remembered_for_long")
async def test_what_a_region_says_of_a_backend_is_shown_beside_it(served: RunningControlPlane) -> None:
    (await served.admin.put("/v1/backends/users", json={})).raise_for_status()
    said = await report(served, {"node": "node-1", "backends": [load("users"), load("none")]})
    assert said.status_code == 204, said.text
    [factor] = (await served.admin.get("/v1/backends/users")).json()["factors"]
    assert (factor["region"], factor["factor"], factor["reason"]) == ("us-east", 0.5, "cut")
    assert (factor["signal"], factor["load"], factor["decided_by"]) == ("cpu", 0.93, "node-1")
    await report(served, {"node": "node-2", "backends": [load("users", factor=1.0, reason="full")]})
    [factor] = (await served.admin.get("/v1/backends/users")).json()["factors"]
    assert (factor["factor"], factor["reason"]) == (1.0, "full"), "the newest word counts"
    # its credential is remembered for a moment, the region is gone
    assert (await served.admin.delete("/v1/regions/us-east")).status_code == 204
    assert (await report(served, {"node": "node-1", "backends": [load("users")]})).status_code == 204
    assert (await served.admin.get("/v1/backends/users")).json()["factors"] == []


MALFORMED = [
    {"node": "n", "backends": [{"backend": "users"}]},
    {"node": "n", "backends": [load("users", since=1e300)]},
    {"node": "n", "backends": [load("users", reason="x" * 200)]},
    {"node": "n", "backends": [load("users", reporters=-1)]},
    {"node": "n", "backends": [load("users", classes=[{"priority": -(2**60), "factor": 0, "offered_per_s": 0}])]},
    {"node": "n\0", "backends": []},
    [],
]


async def test_a_malformed_report_is_refused(served: RunningControlPlane) -> None:
    for body in MALFORMED:
        assert (await report(served, body)).status_code == 422, body


async def test_only_regions_report(served: RunningControlPlane) -> None:
    assert (await report(served, {"node": "n", "backends": []}, "tgr_wrong")).status_code == 401
