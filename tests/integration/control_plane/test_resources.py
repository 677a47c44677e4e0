"""Every resource behaves the same way: create, read, upsert, list in pages, delete, and tags against lost updates."""

from typing import Any

import httpx
import pytest

LIMIT = {"name": "hourly", "limit": 1000, "window_s": 3600}

# collection, the member that names one, what must exist before, the body without the name, and a change to it
RESOURCES: list[tuple[str, str, list[tuple[str, dict[str, Any]]], dict[str, Any], dict[str, Any]]] = [
    ("/v1/plans", "plan", [], {"priority": 10, "limits": [LIMIT]}, {"priority": 20}),
    (
        "/v1/plans/base/limits",
        "name",
        [("/v1/plans/base", {})],
        {"limit": 5, "window_s": 1},
        {"limit": 6, "window_s": 1},
    ),
    ("/v1/limits", "name", [], {"scope": "ip", "limit": 50, "window_s": 1}, {"limit": 9, "window": "day"}),
    (
        "/v1/backends",
        "backend",
        [("/v1/adaptive-policies/protect", {})],
        {"capacity": {"limit": 2000, "window_s": 1.0, "burst": None}, "adaptive": "protect"},
        {"pulls": [{"server": "main", "signal": "cpu", "query": "avg(cpu)"}]},
    ),
    (
        "/v1/adaptive-policies",
        "policy",
        [],
        {"type": "steps", "signals": {"latency_ms": 250.0}, "min_reporters": 1},
        {"target": 0.7, "critical": 50, "reserve": 0.2},
    ),
    (
        "/v1/endpoints",
        "endpoint",
        [("/v1/backends/users", {})],
        {"method": "GET", "path": "/api/users/{id}", "backend": "users"},
        {"method": "POST", "path": "/api/users", "cost": 3},
    ),
    (
        "/v1/clients",
        "client",
        [("/v1/plans/free", {})],
        {"plan": "free", "attributes": {"tier": "gold"}, "external_id": "cus_1"},
        {"plan": "free", "status": "suspended"},
    ),
    ("/v1/regions", "region", [], {"peer_url": "http://127.0.0.1:8101"}, {"peer_url": None}),
]
EACH = pytest.mark.parametrize(
    ("path", "member", "before", "body", "other"), RESOURCES, ids=[row[0] for row in RESOURCES]
)


@pytest.fixture(autouse=True)
async def _before(request: pytest.FixtureRequest, api: httpx.AsyncClient) -> None:
    callspec = getattr(request.node, "callspec", None)
    for path, body in callspec.params.get("before", []) if callspec else []:
        (await api.put(path, json=body)).raise_for_status()


@EACH
async def test_life_of_a_resource(
    api: httpx.AsyncClient, path: str, member: str, before: Any, body: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (await api.get(f"{path}/one")).status_code == 404

    made = await api.post(path, json={member: "one", **body})
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"{path}/one"
    assert made.json()[member] == "one"
    assert body.items() <= made.json().items() or "limits" in body or "match" in made.json()
    first = int(made.headers["x-tidegate-revision"])

    again = await api.post(path, json={member: "one", **body})
    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"
    assert "one" in again.json()["detail"]

    read = await api.get(f"{path}/one")
    assert read.json() == made.json()
    assert read.headers["etag"] == made.headers["etag"]

    unchanged = await api.put(f"{path}/one", json=body)
    assert unchanged.status_code == 200
    assert int(unchanged.headers["x-tidegate-revision"]) == first

    changed = await api.put(f"{path}/one", json={member: "one", **other}, headers={"If-Match": read.headers["etag"]})
    assert changed.status_code == 200, changed.text
    if other != body:
        assert changed.headers["etag"] != read.headers["etag"]
        assert int(changed.headers["x-tidegate-revision"]) == first + 1
        stale = {"If-Match": read.headers["etag"]}
        assert (await api.put(f"{path}/one", json=body, headers=stale)).status_code == 412
        assert (await api.delete(f"{path}/one", headers=stale)).status_code == 412
    assert (await api.put(f"{path}/one", json=body, headers={"If-None-Match": "*"})).status_code == 412

    contradicting = await api.put(f"{path}/one", json={member: "two", **body})
    assert contradicting.status_code == 422
    assert contradicting.json()["errors"][0]["field"] == member

    gone = await api.delete(f"{path}/one", headers={"If-Match": changed.headers["etag"]})
    assert gone.status_code == 204
    assert int(gone.headers["x-tidegate-revision"]) > first
    assert (await api.delete(f"{path}/one")).status_code == 404
    upsert = await api.put(f"{path}/one", json=body)
    assert upsert.status_code == 201


@EACH
async def test_what_is_shown_can_be_sent_back(
    api: httpx.AsyncClient, path: str, member: str, before: Any, body: dict[str, Any], other: dict[str, Any]
) -> None:
    made = await api.put(f"{path}/one", json=body)
    read_only = {"created_at", "generation", "public_key", "public_keys", "previous_expires_at", "manual", "factors"}
    shown = {name: value for name, value in made.json().items() if name not in read_only}
    again = await api.put(f"{path}/one", json=shown)
    assert again.status_code == 200, again.text
    assert again.headers["etag"] == made.headers["etag"]
    assert again.headers["x-tidegate-revision"] == made.headers["x-tidegate-revision"]


@EACH
async def test_lists_come_in_pages_by_name(
    api: httpx.AsyncClient, path: str, member: str, before: Any, body: dict[str, Any], other: dict[str, Any]
) -> None:
    names = [f"n{number}" for number in range(5)]
    for number, name in enumerate(reversed(names)):
        unique = {"path": f"/{number}"} if "method" in body else {}
        (await api.put(f"{path}/{name}", json=body | unique)).raise_for_status()
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = (await api.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item[member] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == names
    assert cursor is None
    assert (await api.get(path, params={"cursor": "!"})).json()["errors"][0]["field"] == "cursor"
    assert (await api.get(path, params={"limit": 0})).json()["errors"][0]["field"] == "limit"


@EACH
async def test_unknown_fields_and_bad_names_are_refused_by_name(
    api: httpx.AsyncClient, path: str, member: str, before: Any, body: dict[str, Any], other: dict[str, Any]
) -> None:
    unknown = await api.post(path, json={member: "one", **body, "colour": "red"})
    assert unknown.status_code == 422
    assert unknown.json()["errors"] == [{"field": "colour", "message": "unknown field"}]
    for name in ("", "..", "a b", "a\n", "a" * 200, "\0", 7, None):
        bad = await api.post(path, json={member: name, **body})
        assert bad.status_code == 422, name
        assert bad.json()["errors"][0]["field"] == member


async def test_what_is_in_use_cannot_be_deleted(api: httpx.AsyncClient) -> None:
    await api.put("/v1/backends/users", json={})
    await api.put("/v1/endpoints/get-user", json={"method": "GET", "path": "/u/{id}", "backend": "users"})
    await api.put("/v1/plans/free", json={"limits": [{**LIMIT, "match": {"endpoints": ["get-user"]}}]})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    for path, user in (
        ("/v1/backends/users", "endpoints"),
        ("/v1/endpoints/get-user", "limit endpoints"),
        ("/v1/plans/free", "clients"),
    ):
        refused = await api.delete(path)
        assert (refused.status_code, refused.json()["detail"]) == (409, f"It is still used by: {user}."), path
    for path in ("/v1/clients/acme", "/v1/plans/free", "/v1/endpoints/get-user", "/v1/backends/users"):
        assert (await api.delete(path)).status_code == 204, path


async def test_references_must_exist(api: httpx.AsyncClient) -> None:
    client = await api.post("/v1/clients", json={"client": "acme", "plan": "nope"})
    assert (client.status_code, client.json()["errors"][0]["field"]) == (422, "plan")
    endpoint = await api.post("/v1/endpoints", json={"endpoint": "e", "method": "GET", "path": "/", "backend": "nope"})
    assert (endpoint.status_code, endpoint.json()["errors"][0]["field"]) == (422, "backend")
    matching = {**LIMIT, "match": {"endpoints": ["nope"]}}
    plan = await api.post("/v1/plans", json={"plan": "p", "limits": [LIMIT | {"name": "a"}, matching]})
    assert (plan.status_code, plan.json()["errors"][0]["field"]) == (422, "limits[1].match.endpoints[0]")
    assert (await api.get("/v1/plans/p/limits")).status_code == 404
    assert (await api.post("/v1/plans/p/limits", json=LIMIT)).status_code == 404
    assert (await api.post("/v1/clients/acme/keys", json={})).status_code == 404


async def test_two_endpoints_never_share_method_and_template(api: httpx.AsyncClient) -> None:
    await api.put("/v1/endpoints/a", json={"method": "GET", "path": "/u/{id}"})
    same = await api.put("/v1/endpoints/b", json={"method": "GET", "path": "/u/{name}"})
    assert same.status_code == 409
    assert "a" in same.json()["detail"]
    assert (await api.put("/v1/endpoints/b", json={"method": "*", "path": "/u/{name}"})).status_code == 201
    assert (await api.put("/v1/endpoints/a", json={"method": "GET", "path": "/u/{other}"})).status_code == 200


async def test_clients_are_found_by_plan_status_and_external_id(api: httpx.AsyncClient) -> None:
    for plan in ("free", "pro"):
        await api.put(f"/v1/plans/{plan}", json={})
    await api.put("/v1/clients/a", json={"plan": "free", "external_id": "x1"})
    await api.put("/v1/clients/b", json={"plan": "pro", "status": "suspended"})

    async def found(**params: str) -> list[str]:
        return [item["client"] for item in (await api.get("/v1/clients", params=params)).json()["items"]]

    assert await found(plan="free") == ["a"]
    assert await found(status="suspended") == ["b"]
    assert await found(external_id="x1", plan="free") == ["a"]
    assert await found(external_id="x1", plan="pro") == []


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"{not json", 422, "body"),
        (b"[]", 422, "body"),
        (b'{"plan": "p", "priority": NaN}', 422, "priority"),
        (b'{"plan": "p", "priority": 1e400}', 422, "priority"),
        (b'{"plan": "p", "priority": "10"}', 422, "priority"),
        (b'{"plan": "p", "priority": true}', 422, "priority"),
        (b'{"plan": "\\ud800"}', 422, "plan"),
        (b"\xff\xfe", 422, "body"),
        (b"[" * 100_000, 400, None),
        (b'{"plan": "p", "priority": ' + b"9" * 5_000 + b"}", 400, None),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_bad_bodies_are_named(api: httpx.AsyncClient, content: bytes, status: int, field: str | None) -> None:
    refused = await api.post("/v1/plans", content=content, headers={"Content-Type": "application/json"})
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    if field is not None:
        assert refused.json()["errors"][0]["field"] == field


async def test_a_body_that_is_said_to_be_a_form_is_asked_for_as_json(api: httpx.AsyncClient) -> None:
    """As by curl's ``-d`` without more."""
    refused = await api.post(
        "/v1/plans", content=b'{"plan": "p"}', headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {"field": "body", "message": "is not taken for JSON: send Content-Type: application/json"}
    ]


async def test_bodies_are_bounded_announced_or_not(api: httpx.AsyncClient) -> None:
    huge = b'{"plan": "' + b"a" * 1_100_000 + b'"}'

    async def parts() -> Any:
        for start in range(0, len(huge), 100_000):
            yield huge[start : start + 100_000]

    for content in (huge, parts()):
        refused = await api.post("/v1/plans", content=content, headers={"Content-Type": "application/json"})
        assert refused.status_code == 413, refused.text
        assert refused.json()["status"] == 413


async def test_unknown_paths_and_methods_are_problems(api: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("PATCH", "/v1/plans", 405), ("GET", "/nothing", 404)):
        refused = await api.request(method, path)
        assert refused.status_code == status
        assert refused.headers["content-type"] == "application/problem+json"
    patched = await api.patch("/v1/plans/x/limits/y")
    assert patched.headers["allow"] == "DELETE, GET, PUT"
