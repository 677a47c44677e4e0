"""What expires goes, history is let go of without harm, nodes that are gone are forgotten, and drift is seen."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from control_plane.settings import Settings
from testing.control_plane import RunningControlPlane, running
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tidegate.stack.postgres import PostgresServer

HOURLY = {"name": "hourly", "limit": 1000, "window_s": 3600}
FUTURE = "2100-01-01T00:00:00Z"

Sql = Callable[[str], str]


@pytest.fixture
def sql(postgres_server: PostgresServer, database_name: str) -> Sql:
    return lambda statement: postgres_server.execute(statement, database=database_name)


async def run_job(admin: httpx.AsyncClient, job: str) -> dict[str, Any]:
    answer = await admin.post(f"/v1/jobs/{job}/run", headers={"Prefer": "wait=15"})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def test_what_expired_goes_for_good(api: httpx.AsyncClient, sql: Sql) -> None:
    await api.put("/v1/plans/free", json={"limits": [HOURLY]})
    for client in ("acme", "globex"):
        await api.put(f"/v1/clients/{client}", json={"plan": "free"})
        override = {"limit": 5, "expires_at": FUTURE}
        assert (await api.put(f"/v1/clients/{client}/overrides/hourly", json=override)).status_code == 201
    key = (await api.post("/v1/clients/acme/keys", json={"expires_at": FUTURE})).json()["key_id"]
    kept = (await api.post("/v1/clients/acme/keys", json={"expires_at": FUTURE})).json()["key_id"]
    token = (await api.post("/v1/tokens", json={"name": "gate", "role": "gateway", "expires_at": FUTURE})).json()
    assert (await run_job(api, "expiry"))["last_detail"] == "Nothing had expired."
    sql("UPDATE overrides SET expires_at = now() - interval '1 second' WHERE client = 'acme'")
    sql(f"UPDATE keys SET expires_at = now() - interval '1 second' WHERE key_id = '{key}'")
    sql(f"UPDATE tokens SET expires_at = now() - interval '1 second' WHERE token_id = '{token['token_id']}'")
    run = await run_job(api, "expiry")
    assert run["last_detail"] == "Expired: 1 clients' overrides, 1 keys, 1 tokens."
    assert (await api.get("/v1/clients/acme/overrides/hourly")).status_code == 404
    assert (await api.get("/v1/clients/globex/overrides/hourly")).status_code == 200
    assert [item["key_id"] for item in (await api.get("/v1/clients/acme/keys")).json()["items"]] == [kept]
    assert (await api.get(f"/v1/tokens/{token['token_id']}")).status_code == 404
    newest = (await api.get("/v1/revisions?limit=1")).json()["items"][0]
    assert (newest["author"], newest["reason"]) == ("job:expiry", "it has expired")
    assert (await run_job(api, "drift-check"))["last_outcome"] == "done"


async def test_what_expired_leaves_its_name_before_the_job_comes(api: httpx.AsyncClient, sql: Sql) -> None:
    await api.put("/v1/plans/free", json={"limits": [HOURLY]})
    for client in ("acme", "globex"):
        await api.put(f"/v1/clients/{client}", json={"plan": "free"})
    soon = {"expires_at": FUTURE}
    anew: dict[str, dict[str, Any]] = {
        "blocks": {"block": "scanner", "ip": "192.0.2.0/24"},
        "tokens": {"name": "gate", "role": "gateway"},
        "clients/globex/keys": {"secret_sha256": "1" * 64},
    }
    only_new = {"If-None-Match": "*"}
    put: dict[str, dict[str, Any]] = {
        "clients/acme/overrides/hourly": {"limit": 5}, "enforcement/free/hourly": {"mode": "shadow"},
        "blocks/other": {"ip": "192.0.2.1"},
    }  # fmt: skip
    imported = b'{"client": "acme", "secret_sha256": "%s"}\n' % (b"2" * 64)
    for path, body in (anew | {"clients/acme/keys": {"secret_sha256": "1" * 64}}).items():
        if path != "clients/globex/keys":
            assert (await api.post(f"/v1/{path}", json=body | soon)).status_code == 201
            assert (await api.post(f"/v1/{path}", json=body)).status_code == 409
    assert (await api.post("/v1/clients/acme/keys", json={"secret_sha256": "2" * 64} | soon)).status_code == 201
    for path, body in put.items():
        assert (await api.put(f"/v1/{path}", json=body | soon, headers=only_new)).status_code == 201
        assert (await api.put(f"/v1/{path}", json=body, headers=only_new)).status_code == 412
    for table in ("blocks", "tokens", "keys", "overrides", "enforcement"):
        sql(f"UPDATE {table} SET expires_at = now() - interval '1 second' WHERE expires_at IS NOT NULL")
    for path, body in anew.items():
        made = await api.post(f"/v1/{path}", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["expires_at"] is None
    for path, body in put.items():
        made = await api.put(f"/v1/{path}", json=body, headers=only_new)
        assert made.status_code == 201, made.text
        assert made.json()["expires_at"] is None
    assert (await api.post("/v1/keys/import", content=imported)).json()["made"] == 1
    actions = [item["action"] for item in (await api.get("/v1/audit", params={"resource": "block"})).json()["items"]]
    assert actions == ["create", "delete", "create", "delete", "create", "create"]
    assert (await run_job(api, "expiry"))["last_detail"] == "Nothing had expired."
    assert (await run_job(api, "drift-check"))["last_outcome"] == "done"


async def test_old_history_goes_and_nodes_that_miss_it_get_a_snapshot(
    make_settings: Callable[..., Settings], sql: Sql
) -> None:
    async with running(make_settings(), ADMIN_TOKEN) as served:
        await served.add_region("us-east")
        await served.admin.put("/v1/plans/free", json={})
        await served.admin.put("/v1/clients/acme", json={"plan": "free"})
        old, recent = served.node("old"), served.node("recent")
        async with old.following():
            await old.until(1)
        gone = int((await served.admin.delete("/v1/clients/acme")).headers["x-tidegate-revision"])
        async with recent.following():
            await recent.until(gone)
        sql("UPDATE revisions SET created_at = now() - interval '40 days'")
        after = int((await served.admin.put("/v1/clients/new", json={"plan": "free"})).headers["x-tidegate-revision"])
        detail = (await run_job(served.admin, "retention"))["last_detail"]
        assert detail.startswith("Forgot 1 tombstones, 0 revisions")
        assert sql("SELECT count(*) FROM config_documents WHERE body IS NULL") == "0"
        for node, base in ((old, None), (recent, gone)):
            again = served.node(node.node)
            again.revision, again.digest, again.documents = node.revision, node.digest, node.documents
            async with again.following():
                await again.until(after)
                assert [begin.base for begin in again.begun] == [base]
                assert ("client", "acme") not in again.documents
        # a whole year later the revisions go too, but for the newest
        sql("UPDATE revisions SET created_at = now() - interval '400 days'")
        await run_job(served.admin, "retention")
        assert [item["revision"] for item in (await served.admin.get("/v1/revisions")).json()["items"]] == [after]


async def test_what_a_roll_out_holds_back_is_not_forgotten_while_it_lasts(
    make_settings: Callable[..., Settings], sql: Sql
) -> None:
    async with running(make_settings(), ADMIN_TOKEN) as served:
        for region in ("eu", "us"):
            await served.add_region(region)
        for plan in ("free", "gone"):
            await served.admin.put(f"/v1/plans/{plan}", json={})
        canary, other = served.node("eu-1", "eu"), served.node("us-1", "us")
        async with canary.following(), other.following():
            await served.until_nodes(lambda nodes: len(nodes) == 2 and not any(n["behind"] for n in nodes.values()))
            policy = {"mode": "canary", "region": "eu", "node": "eu-1", "node_pause_s": 3600}
            (await served.admin.put("/v1/rollouts/policy", json=policy)).raise_for_status()
            gone = await served.admin.delete("/v1/plans/gone")
            rollout = int(gone.headers["x-tidegate-rollout"])
            # a client's write has a revision that both views have
            latest = await served.admin.put("/v1/clients/acme", json={"plan": "free"})
            await other.until(int(latest.headers["x-tidegate-revision"]))
            sql("UPDATE revisions SET created_at = now() - interval '400 days'")
            await run_job(served.admin, "retention")
            assert (await served.admin.get(f"/v1/revisions/{rollout}")).status_code == 200
            released = await served.admin.post(f"/v1/rollouts/{rollout}/release", json={})
            newest = int(released.headers["x-tidegate-revision"])
            await other.until(newest)
            assert ("plan", "gone") not in other.documents


async def test_nodes_that_are_gone_are_forgotten_but_for_the_last_of_a_region(
    served: RunningControlPlane, sql: Sql
) -> None:
    node = served.node("alive")
    async with node.following():
        await node.until(1)
        columns = "INSERT INTO nodes (region, node, version, applied_revision, stream, last_seen) VALUES "
        sql(
            columns + "('us-east', 'lost', '', 0, 'x', now() - interval '1 hour'),"
            " ('us-east', 'ancient', '', 0, NULL, now() - interval '30 days'),"
            " ('eu-west', 'older', '', 0, NULL, now() - interval '31 days'),"
            " ('eu-west', 'last', '', 0, NULL, now() - interval '30 days')"
        )
        detail = (await run_job(served.admin, "node-liveness"))["last_detail"]
        assert detail in {
            "1 nodes are connected; 1 were lost, 2 forgotten.",
            "1 nodes are connected; 0 were lost, 0 forgotten.",  # its own turn came first
        }
        assert sorted(await served.nodes()) == ["alive", "last", "lost"]
        assert sql("SELECT stream IS NULL FROM nodes WHERE node = 'lost'") == "t"


DRIFTING = (
    "config_documents", "config_buckets", "config_head", "clients", "limits", "keys", "backends", "blocks",
    "enforcement", "adaptive_policies", "reporters", "reporter_backends",
)  # fmt: skip
"""What is brought back after each fault."""
DRIFTS = [
    ("UPDATE config_documents SET body = replace(body, 'free', 'gold') WHERE id = 'acme'",
     "client acme does not match its hash"),
    ("UPDATE config_buckets SET digest = decode('00', 'hex')",
     "has another digest"),
    ("UPDATE config_head SET digest = 'f00'", "was signed with another digest"),
    ("UPDATE clients SET status = 'suspended'", "client acme differs from its table"),
    ("UPDATE limits SET \"limit\" = 5", "plan free differs from its table"),
    ("DELETE FROM keys", "is in no table"),
    ("INSERT INTO backends (backend) VALUES ('b')", "backend b has no document"),
    (("UPDATE blocks SET network = '192.0.2.0/25'; UPDATE enforcement SET mode = 'enforce';"
      "UPDATE adaptive_policies SET settings = settings || '{\"floor\": 0.5}'; UPDATE reporters SET sha256 = 'f00'"),
     ("block scanner differs from its table|enforcement free/hourly differs from its table"
      "|adaptive_policy protect differs from its table|reporter lb-1 differs from its table")),
    ("DELETE FROM blocks; DELETE FROM enforcement; DELETE FROM reporter_backends",
     "block scanner is in no table|enforcement free/hourly is in no table|reporter lb-1 differs from its table"),
]  # fmt: skip


async def test_drift_is_seen_and_named(api: httpx.AsyncClient, sql: Sql) -> None:
    for region in ("eu", "us"):
        await api.put(f"/v1/regions/{region}", json={})
    await api.put("/v1/plans/free", json={"limits": [HOURLY | {"mode": "strict"}]})
    await api.put("/v1/limits/world", json={"scope": "ip", "limit": 10, "window_s": 1, "algorithm": "token_bucket"})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    await api.post("/v1/clients/acme/keys", json={})
    soon = {"reason": "test", "expires_at": FUTURE}
    for path, body in {
        "adaptive-policies/protect": {"target": 0.7},
        "backends/users": {"adaptive": "protect"},
        "reporters/lb-1": {"backends": ["users"]},
        "blocks/scanner": {"ip": "192.0.2.0/24"} | soon,
        "enforcement/free/hourly": {"mode": "shadow"} | soon,
    }.items():
        made = await (api.post("/v1/reporters", json={"reporter": "lb-1"} | body) if "reporters" in path
                      else api.put(f"/v1/{path}", json=body))  # fmt: skip
        assert made.status_code in {200, 201}, made.text
    rotated = await api.post("/v1/reporters/lb-1/credentials", json={"overlap_s": 600})
    assert rotated.status_code in {200, 201}, rotated.text
    before = await run_job(api, "drift-check")
    assert before["last_outcome"] == "done", before["last_detail"]
    sql("; ".join(f"CREATE TABLE was_{table} AS TABLE {table}" for table in DRIFTING))
    try:
        for statement, fault in DRIFTS:
            sql(statement)
            found = await run_job(api, "drift-check")
            assert found["last_outcome"] == "failed", statement
            for named in fault.split("|"):
                assert named in found["last_detail"], found["last_detail"]
            # as a replica, which looks at no reference
            sql(
                "SET session_replication_role = replica; "
                + "; ".join(f"DELETE FROM {table}; INSERT INTO {table} TABLE was_{table}" for table in DRIFTING)
            )
    finally:
        sql("; ".join(f"DROP TABLE was_{table}" for table in DRIFTING))
    after = await run_job(api, "drift-check")
    assert after["last_outcome"] == "done", after["last_detail"]
