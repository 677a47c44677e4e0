"""Blocks and enforcement overrides as resources, and as documents that nodes get."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx

from testing.control_plane import RunningControlPlane
from tidegate.stack.postgres import PostgresServer

SOON = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")


async def test_each_kind_of_subject_becomes_a_document(served: RunningControlPlane) -> None:
    admin = served.admin
    await admin.put("/v1/plans/free", json={})
    await admin.put("/v1/clients/acme", json={"plan": "free"})
    key_id = (await admin.post("/v1/clients/acme/keys", json={})).json()["key_id"]
    await admin.put("/v1/endpoints/export", json={"method": "POST", "path": "/exports"})
    node = served.node()
    async with node.following():
        for name, subject in {
            "a-client": {"client": "acme"},
            "a-key": {"key_id": key_id, "reason": "leaked on a forum", "reason_class": "security"},
            "a-network": {"ip": "2001:db8::/32", "expires_at": SOON},
            "an-address": {"ip": "::ffff:203.0.113.7"},
            "an-endpoint": {"endpoint": "export"},
        }.items():
            made = await admin.put(f"/v1/blocks/{name}", json=subject, headers={"Prefer": "wait=12"})
            assert made.status_code == 201, made.text
            assert made.headers["preference-applied"] == "wait"
        assert node.document("block", "a-key") == {"block": "a-key", "key_id": key_id, "reason_class": "security"}
        assert node.document("block", "an-address")["network"] == "203.0.113.7/32"
        assert node.document("block", "a-network")["expires_at"] > datetime.now(UTC).timestamp()
        lifted = await admin.delete("/v1/blocks/a-key")
        await node.until(int(lifted.headers["x-tidegate-revision"]))
        assert ("block", "a-key") not in node.documents


async def test_a_block_gets_a_name_and_can_be_read(api: httpx.AsyncClient) -> None:
    made = await api.post("/v1/blocks", json={"ip": "203.0.113.0/24", "reason": "scraping"})
    name = made.json()["block"]
    assert made.headers["location"] == f"/v1/blocks/{name}"
    assert (await api.get(f"/v1/blocks/{name}")).json()["reason"] == "scraping"
    assert [item["ip"] for item in (await api.get("/v1/blocks")).json()["items"]] == ["203.0.113.0/24"]
    assert (await api.post("/v1/blocks", json={"block": name, "ip": "1.2.3.4"})).status_code == 409


async def test_names_what_is_wrong_with_a_block(api: httpx.AsyncClient) -> None:
    for wrong, field in (
        ({}, "body"),
        ({"ip": "1.2.3.4", "client": "acme"}, "body"),
        ({"ip": "1.2.3.4/8"}, "ip"),
        ({"ip": "nowhere"}, "ip"),
        ({"ip": "fe80::1%eth0"}, "ip"),
        ({"client": "nobody"}, "client"),
        ({"key_id": "key_0000000000000000"}, "key_id"),
        ({"endpoint": "nothing"}, "endpoint"),
        ({"ip": "1.2.3.4", "reason_class": "boredom"}, "reason_class"),
        ({"ip": "1.2.3.4", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ):
        answer = await api.put("/v1/blocks/b", json=wrong)
        assert answer.status_code == 422, wrong
        assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_switch_for_all_one_limit_of_a_plan_and_one_outside(served: RunningControlPlane) -> None:
    admin = served.admin
    limit = {"name": "hourly", "limit": 10, "window_s": 3600}
    await admin.put("/v1/plans/free", json={"limits": [limit]})
    await admin.put("/v1/limits/per-ip", json={"limit": 5, "window_s": 1, "scope": "ip"})
    node = served.node()
    async with node.following():
        for path, target in (
            ("", "*"), ("/free/hourly", "free/hourly"), ("/per-ip", "_/per-ip"),
        ):  # fmt: skip
            turned = await admin.put(f"/v1/enforcement{path}", json={"mode": "shadow", "expires_at": SOON})
            assert turned.status_code == 201, turned.text
            await node.until(int(turned.headers["x-tidegate-revision"]))
            assert node.document("enforcement", target)["mode"] == "shadow"
        listed = (await admin.get("/v1/enforcement")).json()["items"]
        assert [item["target"] for item in listed] == ["*", "_/per-ip", "free/hourly"]
        back = await admin.put("/v1/enforcement/free/hourly", json={"mode": "enforce"})
        assert (back.status_code, back.json()["expires_at"]) == (200, None)
        for path in ("", "/free/hourly", "/per-ip"):
            assert (await admin.delete(f"/v1/enforcement{path}")).status_code == 204
        gone = await admin.delete("/v1/enforcement")
        assert gone.status_code == 404
        assert (await admin.put("/v1/enforcement/free/none", json={"mode": "shadow"})).status_code == 404
        assert (await admin.put("/v1/enforcement/none", json={"mode": "shadow"})).status_code == 404


async def test_what_has_ended_is_taken_away_by_a_job(
    served: RunningControlPlane, postgres_server: PostgresServer, database_name: str
) -> None:
    await served.admin.put("/v1/blocks/old", json={"ip": "1.2.3.4", "expires_at": SOON})
    await served.admin.put("/v1/blocks/new", json={"ip": "1.2.3.5"})
    await served.admin.put("/v1/enforcement", json={"mode": "shadow", "expires_at": SOON})
    past = "now() - interval '1 second'"
    await asyncio.to_thread(
        postgres_server.execute, f"UPDATE blocks SET expires_at = {past} WHERE block = 'old'", database=database_name
    )
    await asyncio.to_thread(
        postgres_server.execute, f"UPDATE enforcement SET expires_at = {past}", database=database_name
    )
    (await served.admin.post("/v1/jobs/ended-blocks/run")).raise_for_status()
    async with asyncio.timeout(15):
        while (await served.admin.get("/v1/enforcement")).json()["items"]:  # blocks went before
            await asyncio.sleep(0.05)
    assert [item["block"] for item in (await served.admin.get("/v1/blocks")).json()["items"]] == ["new"]
    ended = (await served.admin.get("/v1/audit", params={"author": "job:ended-blocks"})).json()["items"]
    assert [(entry["resource"], entry["name"], entry["action"]) for entry in ended] == [
        ("switch", "*", "delete"), ("block", "old", "delete"),
    ]  # fmt: skip
    node = served.node()
    async with node.following():
        await node.until_begun()
        await node.until(1)
        assert {id for kind, id in node.documents if kind in {"block", "enforcement"}} == {"new"}
