"""``If-Match`` is honoured on every route that documents it; what a write answers with is what it made."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from control_plane.app import create_app
from control_plane.settings import Settings
from tests.integration.control_plane.conftest import DATABASE
from tidegate.stack.postgres import PostgresServer

LIMIT = {"limit": 10, "window_s": 1, "mode": "regional"}
STALE = {"If-Match": '"what-was-read-long-ago"'}
SWITCH = {"mode": "shadow"}
BACKEND = {"adaptive": "protect"}
FACTOR = {"factor": 0.5, "expires_at": "2100-01-01T00:00:00Z"}
# what there is, in the order in which it is made
MADE: dict[str, Any] = {
    "/v1/regions/eu": {},
    "/v1/regions/us": {},
    "/v1/adaptive-policies/protect": {"type": "controller", "target": 0.8},
    "/v1/backends/users": BACKEND,
    "/v1/backends/users/factor": FACTOR,
    "/v1/endpoints/get": {"method": "GET", "path": "/a"},
    "/v1/plans/p": {"limits": [LIMIT | {"name": "l"}]},
    "/v1/plans/p/limits/l": LIMIT,
    "/v1/limits/out": LIMIT | {"scope": "ip"},
    "/v1/clients/acme": {"plan": "p"},
    "/v1/clients/acme/overrides/l": {"limit": 5},
    "/v1/quotas/p/l": {"shares": {"eu": 0.5, "us": 0.5}},
    "/v1/blocks/b": {"ip": "203.0.113.7"},
    "/v1/enforcement": SWITCH,
    "/v1/enforcement/out": SWITCH,
    "/v1/enforcement/p/l": SWITCH,
    "/v1/usage-webhooks/w": {"url": "https://example.com/hook", "thresholds": [0.5]},
    "/v1/rollouts/policy": {"mode": "canary", "node_pause_s": 3600},
}


OUT_OF_ORDER: dict[str, Any] = {
    "/v1/adaptive-policies/protect": {"signals": {"queue_delay_ms": 100, "cpu": 1}},
    "/v1/plans/p": {"limits": [LIMIT | {"name": "l", "match": {"attributes": {"aa": "1", "b": "2"}}}]},
    "/v1/plans/p/limits/l": LIMIT | {"match": {"attributes": {"aa": "1", "b": "2"}}},
    "/v1/clients/acme": {"plan": "p", "attributes": {"bb": "1", "c": "2", "aaa": "3"}},
}
"""Objects whose members Postgres gives back in another order."""


async def test_a_write_answers_with_the_tag_that_a_read_has(api: httpx.AsyncClient) -> None:
    for path, body in OUT_OF_ORDER.items():
        made = await api.put(path, json=body)
        assert made.status_code == 201 or path.endswith("/limits/l"), (path, made.text)
        assert (await api.get(path)).headers["etag"] == made.headers["etag"], path
        again = await api.put(path, json=body, headers={"If-Match": made.headers["etag"]})
        assert again.status_code == 200, (path, again.text)


async def put_all(api: httpx.AsyncClient) -> None:
    for path, body in MADE.items():
        answer = await api.put(path, json=body)
        assert answer.status_code in {200, 201}, (path, answer.text)


async def test_a_stale_tag_is_refused_on_every_route_that_takes_one(
    api: httpx.AsyncClient, make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    await put_all(api)
    key = (await api.post("/v1/clients/acme/keys", json={})).json()["key_id"]
    token = (await api.post("/v1/tokens", json={"name": "t", "role": "viewer"})).json()["token_id"]
    await api.post("/v1/reporters", json={"reporter": "r", "backends": ["users"]})
    # a roll-out that waits for a node of a replica that is gone
    await asyncio.to_thread(
        postgres_server.execute,
        "INSERT INTO nodes (region, node, version, applied_revision, stream, last_seen) "
        "VALUES ('eu', 'n', '', 1, 's', now() + interval '1 hour')",
        database=DATABASE,
    )
    began = (await api.put("/v1/plans/q", json={})).headers["x-tidegate-rollout"]
    others: dict[tuple[str, str], tuple[str, Any]] = {
        ("put", "/v1/config"): ("/v1/config", {"version": 1}),
        ("post", "/v1/config/diff"): ("/v1/config/diff", {"version": 1}),
        ("put", "/v1/reporters/{reporter}"): ("/v1/reporters/r", {"backends": ["users"]}),
        ("delete", "/v1/reporters/{reporter}"): ("/v1/reporters/r", None),
        ("post", "/v1/reporters/{reporter}/credentials"): ("/v1/reporters/r/credentials", {}),
        ("post", "/v1/clients/{client}/reset"): ("/v1/clients/acme/reset", {}),
        ("delete", "/v1/clients/{client}/keys/{key_id}"): (f"/v1/clients/acme/keys/{key}", None),
        ("post", "/v1/clients/{client}/keys/{key_id}/rotate"): (f"/v1/clients/acme/keys/{key}/rotate", {}),
        ("post", "/v1/regions/{region}/credentials"): ("/v1/regions/eu/credentials", {}),
        ("post", "/v1/quotas/{plan}/{limit}/free"): ("/v1/quotas/p/l/free", {"region": "eu"}),
        ("delete", "/v1/tokens/{token_id}"): (f"/v1/tokens/{token}", None),
        ("post", "/v1/tokens/{token_id}/rotate"): (f"/v1/tokens/{token}/rotate", {}),
        ("post", "/v1/usage-webhooks/{webhook}/secret"): ("/v1/usage-webhooks/w/secret", None),
        ("post", "/v1/revisions/{number}/rollback"): ("/v1/revisions/1/rollback", {}),
        ("post", "/v1/rollouts/{revision}/release"): (f"/v1/rollouts/{began}/release", {}),
        ("post", "/v1/rollouts/{revision}/rollback"): (f"/v1/rollouts/{began}/rollback", {}),
    }
    # by their shapes: a placeholder for each name that is not of the template
    names = {"eu": "region", "protect": "policy", "users": "backend", "get": "endpoint", "p": "plan", "l": "limit"}
    names |= {"out": "limit", "acme": "client", "b": "block", "w": "webhook"}
    documented = {
        (method, template)
        for template, operations in create_app(make_settings()).openapi()["paths"].items()
        for method, operation in operations.items()
        if any(parameter["name"] == "if-match" for parameter in operation.get("parameters", []))
    }
    wanted = dict(others)
    for path, body in MADE.items():
        template = "/".join(f"{{{names[part]}}}" if part in names else part for part in path.split("/"))
        wanted |= {
            (method, template): (path, body if method == "put" else None)
            for method in ("put", "delete")
            if (method, template) in documented
        }
    head = (await api.get("/v1/revisions?limit=1")).json()["items"][0]
    assert set(wanted) == documented
    for (method, _), (path, body) in wanted.items():
        answer = await api.request(method, path, json=body, headers=STALE)
        assert answer.status_code == 412, (method, path, answer.text)
    assert (await api.get("/v1/revisions?limit=1")).json()["items"][0] == head
    tag = {"If-Match": (await api.get(f"/v1/rollouts/{began}")).headers["etag"]}
    back = await api.post(f"/v1/rollouts/{began}/rollback", headers=tag)
    assert (back.status_code, back.json()["state"]) == (200, "rolled_back")
    assert back.headers["etag"] == (await api.get(f"/v1/rollouts/{began}")).headers["etag"]


async def test_a_quota_is_answered_as_this_write_made_it(api: httpx.AsyncClient) -> None:
    await put_all(api)

    async def put(number: int) -> None:
        shares = {"eu": number / 20, "us": 1 - number / 20}
        answer = await api.put("/v1/quotas/p/l", json={"shares": shares}, headers={"Prefer": "rollout=immediate"})
        assert answer.json()["shares"] == shares

    await asyncio.gather(*(put(number) for number in range(8)))


async def test_a_rollback_can_be_tried_and_deletes_no_more_than_is_allowed(api: httpx.AsyncClient) -> None:
    then = (await api.put("/v1/plans/p", json={})).headers["x-tidegate-revision"]
    for number in range(11):
        assert (await api.put(f"/v1/clients/c{number}", json={"plan": "p"})).status_code == 201
    read = (await api.get("/v1/config?sections=plans")).headers["etag"]
    path = f"/v1/revisions/{then}/rollback"
    refused = await api.post(path, json={})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "allow_deletes")
    tried = (await api.post(path, json={}, params={"dry_run": True, "allow_deletes": 11})).json()
    assert (tried["dry_run"], tried["revision"]) == (True, 12)
    assert {change["action"] for change in tried["changes"]} == {"delete"}
    assert (await api.get("/v1/clients/c0")).status_code == 200
    done = await api.post(path, json={}, params={"allow_deletes": 11}, headers={"If-Match": read})
    assert (done.status_code, done.json()["revision"], len(done.json()["changes"])) == (200, 13, 11)
    assert (await api.get("/v1/clients/c0")).status_code == 404


async def test_every_write_makes_a_revision(api: httpx.AsyncClient) -> None:
    newest = 0
    token = (await api.post("/v1/tokens", json={"name": "t", "role": "viewer"})).json()["token_id"]
    hook = {"webhook": "w", "url": "https://example.com/hook", "thresholds": [0.5]}
    for method, path, body in (
        ("POST", "/v1/tokens", {"name": "u", "role": "admin"}),
        ("POST", f"/v1/tokens/{token}/rotate", {}),
        ("DELETE", f"/v1/tokens/{token}", None),
        ("POST", "/v1/usage-webhooks", hook),
        ("POST", "/v1/usage-webhooks/w/secret", None),
        ("DELETE", "/v1/usage-webhooks/w", None),
    ):
        answer = await api.request(method, path, json=body)
        assert answer.is_success, answer.text
        revision = int(answer.headers["x-tidegate-revision"])
        assert revision > newest
        (entry,) = (await api.get("/v1/audit", params={"revision": revision})).json()["items"]
        assert entry["author"] == "first-admin"
        newest = revision


async def test_a_run_of_a_job_is_in_the_audit_log(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/p", json={})
    assert (await api.post("/v1/jobs/retention/run")).status_code == 202
    (entry,) = (await api.get("/v1/audit", params={"resource": "job"})).json()["items"]
    assert (entry["action"], entry["name"], entry["author"], entry["revision"]) == (
        "run",
        "retention",
        "first-admin",
        1,
    )
    assert entry["request_id"]
