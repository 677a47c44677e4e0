"""A revision goes to one node, its region, then all; trouble stops it and gives back what was before."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from typing import Any

import httpx
import msgspec
import pytest
from rich.console import Console

from control_plane.canary import service as engine
from control_plane.canary.placement import CanaryPlacement
from control_plane.config_file.rollback import undo
from control_plane.database import Database
from control_plane.derivation import derive
from control_plane.errors import UnavailableError
from control_plane.metrics import Metrics
from control_plane.publishing.repository import Signer
from control_plane.publishing.writer import ConfigWriter
from control_plane.push.stream import FrameSource, views
from control_plane.settings import Settings
from testing.control_plane import FollowingNode, RunningControlPlane, running
from tests.integration.control_plane.conftest import ADMIN_TOKEN, DATABASE
from tidegate.contract.config import HeldBack
from tidegate.contract.credentials import secret_sha256
from tidegate.file.show import held_back
from tidegate.stack.postgres import PostgresServer
from tidegate.top.readings import AdminReader, compare
from tidegate.top.screen import as_json, render

CANARY = {"mode": "canary", "region": "eu", "node": "eu-1", "node_pause_s": 0, "region_pause_s": 0}
SLOW = CANARY | {"node_pause_s": 3600, "region_pause_s": 3600}
PLAIN = {"name": "l", "limit": 4, "window_s": 1}
WAIT_S = 15.0
MAKE_PLACEMENT = partial(CanaryPlacement, heartbeat_s=5.0)
NAMES = ("eu-1", "eu-2", "us-1")


class Fleet:
    """A control plane with two nodes in eu and one in us."""

    def __init__(self, served: RunningControlPlane, nodes: dict[str, FollowingNode]) -> None:
        self.served = served
        self.admin = served.admin
        self.nodes = nodes

    def priorities(self) -> dict[str, Any]:
        """What each node has as the plan's priority."""
        return {
            name: node.document("plan", "p").get("priority", 0) if ("plan", "p") in node.documents else None
            for name, node in self.nodes.items()
        }

    def ever(self, name: str) -> set[int]:
        """Every priority of the plan that a node ever had."""
        return {msgspec.json.decode(body).get("priority", 0) for _, id, body in self.nodes[name].had if id == "p"}

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await asyncio.sleep(0.02)

    async def until_state(self, revision: int, *states: str) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            while True:
                view: dict[str, Any] = (await self.admin.get(f"/v1/rollouts/{revision}")).json()
                if view.get("state") in states:
                    return view
                await asyncio.sleep(0.02)

    async def write(self, path: str, body: dict[str, Any], **headers: str) -> int:
        answer = await self.admin.put(path, json=body, headers=headers)
        answer.raise_for_status()
        return int(answer.headers["x-tidegate-revision"])

    async def all_digests_agree(self) -> None:
        head = (await self.admin.get("/v1/revisions?limit=1")).json()["items"][0]
        for node in self.nodes.values():
            await node.until(head["revision"])
            assert node.computed_digest() == head["digest"]


@asynccontextmanager
async def other_replica(settings: Settings) -> AsyncIterator[Database]:
    url = settings.database_url.get_secret_value()
    database = Database(url, connect_timeout_s=10.0, command_timeout_s=20.0, pool_size=4)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def fleet(settings: Settings, policy: dict[str, Any], **changes: Any) -> AsyncIterator[Fleet]:
    async with running(settings, ADMIN_TOKEN) as served:
        for region in ("eu", "us"):
            await served.add_region(region)
        await served.admin.put("/v1/plans/p", json={"priority": 1})
        put = await served.admin.put("/v1/rollouts/policy", json=policy)
        assert put.status_code == 200, put.text
        async with AsyncExitStack() as stack:
            nodes = {}
            for name in NAMES:
                node = served.node(name, name[:2], **changes.get(name, {}))
                nodes[name] = await stack.enter_async_context(node.following())
                await node.until(1)
            found = Fleet(served, nodes)
            await found.until(lambda: set(found.priorities().values()) == {1})
            await served.until_nodes(lambda seen: all(seen.get(name, {}).get("connected") for name in NAMES))
            yield found


async def test_one_node_then_its_region_then_all(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        changed = await found.admin.put("/v1/plans/p", json={"priority": 2}, headers={"Prefer": "wait=12"})
        revision = int(changed.headers["x-tidegate-revision"])
        assert changed.headers["x-tidegate-rollout"] == str(revision)
        assert "preference-applied" not in changed.headers
        await found.until(lambda: found.priorities() == {"eu-1": 2, "eu-2": 1, "us-1": 1})
        view = await found.until_state(revision, "node")
        assert (view["region"], view["node"], view["base_revision"]) == ("eu", "eu-1", revision - 1)
        assert view["held"] == [{"kind": "plan", "id": "p"}]
        for name, node in found.nodes.items():
            await node.until(revision)
            lacks = None if name == "eu-1" else HeldBack(rollout=revision, whole=revision - 1)
            assert node.begun[-1].held_back == lacks, name
        held_back = {name: node["held_back"] for name, node in (await found.served.nodes()).items()}
        assert held_back == {"eu-1": None, "eu-2": revision, "us-1": revision}
        detail: dict[str, Any] = {}
        async with asyncio.timeout(20):  # ACKs are stored together, a moment later
            while [node["node"] for node in detail.get("pending", ())] != ["eu-2", "us-1"]:
                detail = (await found.admin.get(f"/v1/revisions/{revision}")).json()
        assert detail["rollout"]["state"] == "node"
        listed = (await found.admin.get("/v1/rollouts")).json()["items"]
        assert [item["revision"] for item in listed] == [revision]

        # what concerns one client goes everywhere at once, with what is held back still held back
        client = await found.write("/v1/clients/acme", {"plan": "p"})
        for node in found.nodes.values():
            await node.until(client)
            assert node.document("client", "acme")["plan"] == "p"
        assert found.priorities() == {"eu-1": 2, "eu-2": 1, "us-1": 1}
        # a node that comes meanwhile gets what its place is in
        late = found.served.node("us-2", "us")
        async with late.following():
            await late.until(client)
            assert late.document("plan", "p")["priority"] == 1

        released = await found.admin.post(f"/v1/rollouts/{revision}/release", json={"reason": "looks good"})
        assert (released.json()["state"], released.json()["outcome"]) == ("done", "looks good")
        await found.until(lambda: set(found.priorities().values()) == {2})
        await found.all_digests_agree()
        await found.served.until_nodes(lambda seen: all(seen[name]["behind"] == 0 for name in NAMES))
        detail = (await found.admin.get(f"/v1/revisions/{revision}")).json()
        assert detail["pending"] == []
        again = await found.admin.post(f"/v1/rollouts/{revision}/release", json={})
        assert again.status_code == 409
        assert (await found.admin.post(f"/v1/rollouts/{revision + 99}/release", json={})).status_code == 404


async def test_it_goes_on_by_itself(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), CANARY) as found:
        revision = await found.write("/v1/plans/p", {"priority": 2})
        view = await found.until_state(revision, "done")
        assert "without trouble" in view["outcome"]
        await found.all_digests_agree()
        assert set(found.priorities().values()) == {2}
        history = (await found.admin.get("/v1/revisions?limit=3")).json()["items"]
        assert [item["author"] for item in history] == ["roll-out", "roll-out", "first-admin"]
        assert history[1]["reason"].startswith(f"Roll-out of revision {revision} to all of eu: 1 nodes had it")
        assert history[0]["reason"].startswith(f"Roll-out of revision {revision} to every node: 2 nodes had it")
        # the region had it before the rest of the world
        us = found.nodes["us-1"]
        assert [begin.revision for begin in us.begun][-1] == history[0]["revision"]
        assert history[1]["revision"] not in [begin.revision for begin in us.begun]


async def test_two_that_lead_at_once_skip_no_stage(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer, database_name: str
) -> None:
    settings = make_settings()
    async with fleet(settings, SLOW) as found, other_replica(settings) as database:
        signer = Signer(settings.signing_key())
        writers = [ConfigWriter(database, signer, MAKE_PLACEMENT, derive) for _ in range(2)]
        other = engine.RolloutEngine(database, writers[1], undo, settings.heartbeat_s)
        revision = await found.write("/v1/plans/p", {"priority": 2})
        async with asyncio.timeout(WAIT_S):
            while (await found.admin.get(f"/v1/rollouts/{revision}")).json()["acked_at"] is None:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(WAIT_S):
            async with writers[0].begin("me", None):
                postgres_server.execute("UPDATE rollouts SET node_pause_s = 0", database=database_name)
                # the leader, and one that does not know yet that it is none: both saw the node's stage end
                late = asyncio.create_task(other.run())
                while int(postgres_server.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")) < 2:
                    await asyncio.sleep(0.02)
            await late
            await found.until_state(revision, "region", "done")
        ran = await found.admin.post("/v1/jobs/roll-outs/run", headers={"Prefer": "wait=10"})
        assert ran.json()["last_outcome"] == "done", ran.text
        assert (await found.admin.get(f"/v1/rollouts/{revision}")).json()["state"] == "region"
        assert found.priorities()["us-1"] == 1


async def test_a_refusal_stops_it_and_gives_back_what_was(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        found.nodes["eu-1"].nacks = "cannot enforce this"
        revision = await found.write(
            "/v1/plans/p", {"priority": 2, "limits": [{"name": "l", "limit": 5, "window_s": 1}]}
        )
        view = await found.until_state(revision, "rolled_back")
        assert view["outcome"] == f"eu/eu-1 refused revision {revision}: cannot enforce this"
        plan = (await found.admin.get("/v1/plans/p")).json()
        assert (plan["priority"], plan["limits"]) == (1, [])
        newest = (await found.admin.get("/v1/revisions?limit=1")).json()["items"][0]
        assert newest["revision"] == view["released_revision"]
        assert newest["author"] == "roll-out"
        for name in ("eu-2", "us-1"):
            node = found.nodes[name]
            await node.until(newest["revision"])
            assert node.computed_digest() == newest["digest"]
            assert 2 not in found.ever(name)
        drift = await found.admin.post("/v1/jobs/drift-check/run", headers={"Prefer": "wait=10"})
        assert drift.json()["last_outcome"] == "done", drift.text


async def report(found: Fleet, node: str, **figures: int) -> None:
    answer = await found.nodes[node].client.post("/internal/v1/reports", json={"node": node, **figures})
    assert answer.status_code == 204, answer.text


@pytest.mark.parametrize(("figure", "words"), [("denied", "denials rose"), ("degraded", "degraded decisions rose")])
async def test_a_jump_of_denials_stops_it(make_settings: Callable[..., Settings], figure: str, words: str) -> None:
    async with fleet(make_settings(), SLOW) as found:
        await report(found, "eu-1", decisions=1000, denied=20)
        await report(found, "us-1", decisions=1000, denied=900)
        await asyncio.gather(*(node.until_heartbeats(len(node.heartbeats) + 3) for node in found.nodes.values()))
        revision = await found.write("/v1/plans/p", {"priority": 2})
        await found.until_state(revision, "node")
        await found.until(lambda: found.priorities()["eu-1"] == 2)
        # as before, and a jump of a node that is not in the stage: neither says anything
        await report(found, "eu-1", decisions=1000, denied=30)
        await report(found, "us-1", decisions=1000, denied=1000)
        await found.nodes["eu-1"].until_heartbeats(len(found.nodes["eu-1"].heartbeats) + 5)
        assert (await found.admin.get(f"/v1/rollouts/{revision}")).json()["state"] == "node"
        await report(found, "eu-1", decisions=1000, **({"denied": 30} | {figure: 700}))
        view = await found.until_state(revision, "rolled_back")
        assert view["outcome"].startswith(words)
        await found.until(lambda: set(found.priorities().values()) == {1})


async def test_what_cannot_be_in_both_views_is_refused(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        await found.write("/v1/plans/other", {}, Prefer="rollout=immediate")
        revision = await found.write("/v1/plans/new", {})
        assert (await found.admin.get("/v1/rollouts")).json()["items"][0]["revision"] == revision
        for name in (
            "eu-2",
            "us-1",
        ):  # strict limits are refused by numbers older than the newest that a store has heard
            await found.nodes[name].until(revision)
            assert ("plan", "new") not in found.nodes[name].documents
        for path, body, word in (
            ("/v1/plans/new", {"priority": 5}, "holds back the plan new"),
            ("/v1/plans/other", {"priority": 5}, "would need one of its own"),
            ("/v1/clients/acme", {"plan": "new"}, "holds back the plan new"),
        ):
            refused = await found.admin.put(path, json=body)
            assert (refused.status_code, refused.json()["rollout"]) == (409, str(revision))
            assert word in refused.json()["detail"]
        held = await found.admin.put("/v1/plans/new", json={"priority": 5}, headers={"Prefer": "rollout=immediate"})
        assert held.status_code == 409
        # the emergency switch: to all, beside what is held back
        urgent = await found.write("/v1/plans/other", {"priority": 9}, Prefer="rollout=immediate")
        for node in found.nodes.values():
            await node.until(urgent)
            assert node.document("plan", "other")["priority"] == 9
        assert ("plan", "new") not in found.nodes["us-1"].documents
        back = await found.admin.post(f"/v1/rollouts/{revision}/rollback", json={"reason": "no"})
        assert back.json()["state"] == "rolled_back"
        assert (await found.admin.get("/v1/plans/new")).status_code == 404
        await found.until(lambda: all(("plan", "new") not in node.documents for node in found.nodes.values()))
        await found.all_digests_agree()
        # from now on everything at once
        await found.write("/v1/rollouts/policy", {"mode": "immediate"})
        made = await found.admin.put("/v1/plans/new", json={}, headers={"Prefer": "wait=12"})
        assert made.headers["preference-applied"] == "wait"
        assert "x-tidegate-rollout" not in made.headers


async def test_nothing_comes_to_use_what_could_then_not_be_taken_back(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        await found.write("/v1/clients/c", {"plan": "p"})
        file = {
            "version": 1,
            "regions": {"eu": {}, "us": {}, "ap": {}},
            "adaptive_policies": {"held": {}},
            "backends": {"held": {}},
            "endpoints": {"held": {"route": "GET /held"}},
            "plans": {"p": {"limits": {"daily": {"limit": "100/day", "mode": "strict"}}}},
        }
        revision = int((await found.admin.put("/v1/config", json=file)).headers["x-tidegate-rollout"])
        limit = {"limit": 4, "window_s": 1}
        for path, body, what in (
            ("/v1/limits/l", limit | {"match": {"endpoints": ["held"]}}, "endpoint held"),
            ("/v1/plans/other", {"limits": [limit | {"name": "l", "adaptive": "held"}]}, "adaptive_policy held"),
            ("/v1/backends/b", {"adaptive": "held"}, "adaptive_policy held"),
            ("/v1/endpoints/e", {"method": "GET", "path": "/e", "backend": "held"}, "backend held"),
        ):
            refused = await found.admin.put(path, json=body, headers={"Prefer": "rollout=immediate"})
            assert (refused.status_code, refused.json().get("rollout")) == (409, str(revision)), refused.text
            assert f"holds back the {what}" in refused.json()["detail"]
        reporter = await found.admin.post("/v1/reporters", json={"reporter": "r", "backends": ["held"]})
        assert (reporter.status_code, reporter.json()["rollout"]) == (409, str(revision))
        back = await found.admin.post(f"/v1/rollouts/{revision}/rollback", json={"reason": "no"})
        assert back.status_code == 200, back.text
        assert (await found.admin.get("/v1/backends/held")).status_code == 404


async def test_nothing_goes_that_taking_back_needs(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        limit = {"name": "l", "limit": 4, "window_s": 1}
        strict = {"name": "s", "limit": 4, "window_s": 1, "mode": "strict"}
        file = {
            "version": 1,
            "adaptive_policies": {"used": {}},
            "backends": {"used": {}},
            "endpoints": {"used": {"route": "GET /used"}, "served": {"route": "GET /moves", "backend": "used"}},
        }
        now = {"Prefer": "rollout=immediate"}
        (await found.admin.put("/v1/config", json=file, headers=now)).raise_for_status()
        named = {"match": {"endpoints": ["used"]}, "adaptive": "used"}
        await found.write("/v1/plans/p", {"limits": [limit | named, strict]}, **now)
        (await found.admin.put("/v1/quotas/p/s", json={"shares": {"us": 1.0}}, headers=now)).raise_for_status()
        changed = {
            "version": 1,
            "endpoints": {"used": {"route": "GET /used"}, "served": {"route": "GET /s"}},
            "plans": {"p": {"limits": {"l": {"limit": "4/s"}}}},
        }
        revision = int((await found.admin.put("/v1/config", json=changed)).headers["x-tidegate-rollout"])
        for path in ("/v1/adaptive-policies/used", "/v1/backends/used", "/v1/endpoints/used", "/v1/regions/us"):
            refused = await found.admin.delete(path, headers=now)
            assert (refused.status_code, path) == (409, path)
            assert refused.json()["rollout"] == str(revision)
            assert "could not be rolled back without" in refused.json()["detail"]
        taken = await found.admin.put("/v1/endpoints/other", json={"method": "GET", "path": "/moves"}, headers=now)
        assert (taken.status_code, taken.json()["rollout"]) == (409, str(revision))
        back = await found.admin.post(f"/v1/rollouts/{revision}/rollback", json={"reason": "no"})
        assert back.status_code == 200, back.text
        await found.all_digests_agree()


async def test_what_others_changed_since_stays_when_it_is_taken_back(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        limit = {"name": "l", "limit": 4, "window_s": 1}
        await found.write("/v1/plans/p", {"priority": 1, "limits": [limit]}, Prefer="rollout=immediate")
        for client in ("c", "gone"):
            await found.write(f"/v1/clients/{client}", {"plan": "p"})
        file = {
            "version": 1,
            "plans": {"p": {"priority": 2, "limits": {"l": {"limit": "4/s"}}}},
            "clients": {name: {"plan": "p", "external_id": f"cus_{name}"} for name in ("c", "gone")},
        }
        revision = int((await found.admin.put("/v1/config", json=file)).headers["x-tidegate-rollout"])
        await found.write("/v1/clients/c", {"plan": "p", "status": "suspended", "external_id": "cus_c"})
        await found.write("/v1/clients/c/overrides/l", {"limit": 9})
        assert (await found.admin.delete("/v1/clients/gone")).status_code == 204
        back = await found.admin.post(f"/v1/rollouts/{revision}/rollback", json={"reason": "no"})
        assert back.status_code == 200, back.text
        client = (await found.admin.get("/v1/clients/c")).json()
        assert (client["status"], client["external_id"]) == ("suspended", None)
        assert (await found.admin.get("/v1/clients/c/overrides/l")).json()["limit"] == 9
        assert (await found.admin.get("/v1/clients/gone")).status_code == 404
        assert (await found.admin.get("/v1/plans/p")).json()["priority"] == 1
        await found.all_digests_agree()


@pytest.mark.parametrize(
    ("changed", "lasting", "brief"),
    [([], {}, {}), ([PLAIN], {}, {"burst": 5}), ([PLAIN], {"burst": 5}, {})],
    ids=["all goes", "what is for a while goes", "what lasts goes"],
)
async def test_what_is_for_a_while_comes_back_when_it_is_taken_back(
    make_settings: Callable[..., Settings],
    changed: list[dict[str, Any]],
    lasting: dict[str, int],
    brief: dict[str, int],
) -> None:
    async with fleet(make_settings(), SLOW) as found:
        later = "2100-01-01T00:00:00Z"
        limit = {**PLAIN, "algorithm": "token_bucket"}
        await found.write("/v1/plans/p", {"limits": [limit]}, Prefer="rollout=immediate")
        await found.write("/v1/clients/c", {"plan": "p"})
        await found.write("/v1/clients/c/overrides/l", {"limit": 7, **lasting})
        await found.write("/v1/clients/c/overrides/l", {"limit": 9, "expires_at": later, **brief})
        shadow = await found.write("/v1/enforcement/p/l", {"mode": "shadow", "expires_at": later})
        await found.nodes["us-1"].until(shadow)
        before = dict(found.nodes["us-1"].documents)
        revision = await found.write("/v1/plans/p", {"limits": changed})
        back = await found.admin.post(f"/v1/rollouts/{revision}/rollback", json={"reason": "no"})
        assert back.status_code == 200, back.text
        await found.all_digests_agree()
        for name, node in found.nodes.items():
            assert node.documents == before, name
        override = (await found.admin.get("/v1/clients/c/overrides/l")).json()
        assert (override["limit"], override["expires_at"], override["then"]["limit"]) == (9, later, 7)
        assert (await found.admin.get("/v1/enforcement/p/l")).json()["mode"] == "shadow"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/backends/b", {}),
        ("DELETE", "/v1/backends/b", None),
        ("PUT", "/v1/backends/b/factor", {"factor": 0.25, "expires_at": "2099-01-01T00:00:00Z"}),
        ("DELETE", "/v1/backends/b/factor", None),
        ("PUT", "/v1/backends/other/factor", {"factor": 0.25, "expires_at": "2099-01-01T00:00:00Z"}),
    ],
)
async def test_a_manual_factor_is_as_before_when_it_is_taken_back(
    make_settings: Callable[..., Settings], method: str, path: str, body: dict[str, Any] | None
) -> None:
    async with fleet(make_settings(), SLOW) as found:
        at_once = {"Prefer": "rollout=immediate"}
        manual = {"factor": 0.5, "expires_at": "2100-01-01T00:00:00Z", "reason": "a slow database"}
        await found.write("/v1/adaptive-policies/protect", {"type": "controller"}, **at_once)
        await found.write("/v1/backends/other", {"adaptive": "protect"}, **at_once)
        await found.write("/v1/backends/b", {"adaptive": "protect"}, **at_once)
        await found.nodes["us-1"].until(await found.write("/v1/backends/b/factor", manual, **at_once))
        before = dict(found.nodes["us-1"].documents)
        changed = await found.admin.request(method, path, json=body)
        revision = int(changed.headers["x-tidegate-rollout"])
        back = await found.admin.post(f"/v1/rollouts/{revision}/rollback", json={"reason": "no"})
        assert back.status_code == 200, back.text
        await found.all_digests_agree()
        for name, node in found.nodes.items():
            assert node.documents == before, name
        assert (await found.admin.get("/v1/backends/b/factor")).json() == manual
        assert (await found.admin.get("/v1/backends/other/factor")).status_code == 404


async def test_clients_come_back_with_their_keys_when_it_is_taken_back(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        await found.write("/v1/clients/c", {"plan": "p"})
        for key in ({"name": "web"}, {"expires_at": "2100-01-01T00:00:00.123456Z"}):
            made = await found.admin.post("/v1/clients/c/keys", json=key)
        await found.nodes["us-1"].until(int(made.headers["x-tidegate-revision"]))
        before = dict(found.nodes["us-1"].documents)
        keys = (await found.admin.get("/v1/clients/c/keys")).json()["items"]
        file = {"version": 1, "plans": {"p": {"priority": 2}}, "clients": {}}
        applied = await found.admin.put("/v1/config", json=file, params={"prune": "clients"})
        number = applied.headers["x-tidegate-rollout"]
        back = await found.admin.post(f"/v1/rollouts/{number}/rollback", json={"reason": "no"})
        assert back.status_code == 200, back.text
        await found.all_digests_agree()
        for name, node in found.nodes.items():
            assert node.documents == before, name
        again = (await found.admin.get("/v1/clients/c/keys")).json()["items"]
        assert [{**key, "created_at": None} for key in again] == [{**key, "created_at": None} for key in keys]


async def test_a_key_that_is_held_back_is_named_without_its_hash(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        await found.write("/v1/clients/c", {"plan": "p"})
        key = (await found.admin.post("/v1/clients/c/keys", json={"name": "web"})).json()
        file = {"version": 1, "plans": {"p": {"priority": 2}}, "clients": {}}
        applied = await found.admin.put("/v1/config", json=file, params={"prune": "clients"})
        held = {item["kind"]: item["id"] for item in applied.json()["rollout"]["held"]}
        assert held == {"plan": "p", "client": "c", "key": key["key_id"]}
        rollout = await found.admin.get(f"/v1/rollouts/{applied.headers['x-tidegate-rollout']}")
        assert secret_sha256(key["secret"]) not in rollout.text


async def test_tokens_do_not_wait_to_expire_for_clients_that_are_held_back(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    async with fleet(make_settings(), SLOW) as found:
        later = "2100-01-01T00:00:00Z"
        limits = [{"name": name, "limit": 5, "window_s": 1} for name in ("goes", "stays")]
        await found.write("/v1/plans/q", {"limits": limits}, Prefer="rollout=immediate")
        await found.write("/v1/clients/c", {"plan": "q"})
        await found.write("/v1/clients/c/overrides/goes", {"limit": 9})
        await found.write("/v1/clients/c/overrides/stays", {"limit": 9, "expires_at": later})
        token = {"name": "t", "role": "viewer", "expires_at": later}
        (await found.admin.post("/v1/tokens", json=token)).raise_for_status()
        revision = await found.write("/v1/plans/q", {"limits": limits[1:]})
        for table in ("overrides", "tokens"):
            await asyncio.to_thread(
                postgres_server.execute,
                f"UPDATE {table} SET expires_at = now() WHERE expires_at > now()",
                database=DATABASE,
            )
        ran = (await found.admin.post("/v1/jobs/expiry/run", headers={"Prefer": "wait=10"})).json()
        assert (
            f"no clients' overrides (The roll-out of revision {revision} holds back the client c." in ran["last_detail"]
        )
        assert ran["last_outcome"] == "done"
        assert [item["name"] for item in (await found.admin.get("/v1/tokens")).json()["items"]] == ["first-admin"]


async def test_a_canary_that_went_before_it_got_anything_is_replaced(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    async with fleet(make_settings(), SLOW) as found:
        await found.write("/v1/rollouts/policy", SLOW | {"node": "eu-0"})
        # a node whose replica crashed with its stream: connected until its heartbeats are missed
        await asyncio.to_thread(
            postgres_server.execute,
            "INSERT INTO nodes (region, node, version, applied_revision, stream) VALUES ('eu', 'eu-0', '', 1, 'lost')",
            database=DATABASE,
        )
        revision = await found.write("/v1/plans/p", {"priority": 2})
        with monkeypatch.context() as until_replaced:
            until_replaced.setattr(engine, "LOST_S", 0.5)
            await found.until(lambda: found.priorities()["eu-1"] == 2)
        view = await found.until_state(revision, "node")
        assert view["node"] == "eu-1"
        assert found.priorities() == {"eu-1": 2, "eu-2": 1, "us-1": 1}


@pytest.mark.parametrize("acks", [False, True])
async def test_a_canary_that_dies_of_it_has_no_successor(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, acks: bool
) -> None:
    async with fleet(make_settings(), SLOW) as found:
        canary = found.served.node("eu-0", "eu", acks=acks)
        await found.write("/v1/rollouts/policy", SLOW | {"node": "eu-0"})
        async with canary.following():
            await canary.until(1)
            revision = await found.write("/v1/plans/p", {"priority": 2})
            await canary.until(revision)
            if acks:
                await found.served.until_nodes(lambda seen: seen["eu-0"]["applied_revision"] == revision)
            monkeypatch.setattr(engine, "LOST_S", 0.5)
        view = await found.until_state(revision, "rolled_back")
        why = "nodes that applied revision" if acks else f"eu/eu-0 got revision {revision} and has not applied it"
        assert why in view["outcome"]
        await found.until(lambda: set(found.priorities().values()) == {1})
        assert all(2 not in found.ever(name) for name in found.nodes)
        # it comes back with what it has, and gets what was before
        again = found.served.node("eu-0", "eu")
        again.revision, again.digest, again.documents = canary.revision, canary.digest, canary.documents
        async with again.following():
            await again.until(view["released_revision"])
            assert again.document("plan", "p")["priority"] == 1


async def test_a_stream_that_saw_no_roll_out_yet_reads_nothing_that_is_held_back(
    make_settings: Callable[..., Settings],
) -> None:
    """A stream looks at the head, and then has its delta read: a roll-out may begin in between, or another one."""
    settings = make_settings()
    async with fleet(settings, SLOW) as found, other_replica(settings) as database:
        frames = FrameSource(database, Signer(settings.signing_key()), Metrics())
        async with database.read() as session:
            before = await views(session)
        await found.write("/v1/plans/p", {"priority": 2})
        async with database.read() as session:
            after = await views(session)
        with pytest.raises(UnavailableError, match="roll-out has begun"):
            await frames.delta(before.head.revision - 1, before.head, before.place_of("us", "us-1"))
        with pytest.raises(UnavailableError, match="roll-out has begun"):
            await frames.snapshot(before.head, before.place_of("us", "us-1"))
        for node, expected in (("us-1", b'"priority":1'), ("eu-1", b'"priority":2')):
            region = node[:2]
            made = await frames.snapshot(after.of(region, node), after.place_of(region, node))
            assert expected in b"".join(made.lines), node
        (await found.admin.post(f"/v1/rollouts/{after.rollout}/release")).raise_for_status()
        await found.write("/v1/rollouts/policy", SLOW | {"node": "eu-2"})
        await found.write("/v1/plans/p", {"priority": 3})
        with pytest.raises(UnavailableError, match="roll-out has begun"):
            await frames.delta(before.head.revision, after.stable, after.place_of("eu", "eu-2"))


async def test_a_region_that_dies_of_it_is_not_waited_for(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet(make_settings(), CANARY | {"region": "ap", "node": None, "region_pause_s": 3600}) as found:
        await found.served.add_region("ap")
        first, second = (found.served.node(name, "ap") for name in ("ap-1", "ap-2"))
        async with first.following(), second.following():
            await found.served.until_nodes(lambda seen: "ap-2" in seen and seen["ap-2"]["applied_revision"] > 0)
            revision = await found.write("/v1/plans/p", {"priority": 2})
            await found.until_state(revision, "region")
            await found.served.until_nodes(
                lambda seen: all(seen[name]["applied_revision"] == revision + 1 for name in ("ap-1", "ap-2"))
            )
            # not before: on a busy machine a node that lives may be out of sight for so long
            monkeypatch.setattr(engine, "LOST_S", 0.5)
        view = await found.until_state(revision, "rolled_back")
        assert "nodes that applied revision" in view["outcome"]
        await found.until(lambda: set(found.priorities().values()) == {1})


async def test_wrong_policies_and_reports_are_named(served: RunningControlPlane) -> None:
    for body, field in (
        ({"mode": "slow"}, "mode"),
        ({"mode": "canary", "node_pause_s": -1}, "node_pause_s"),
        ({"mode": "canary", "max_denial_rise": 2}, "max_denial_rise"),
        ({"mode": "canary", "speed": 1}, "speed"),
        ({}, "mode"),
    ):
        refused = await served.admin.put("/v1/rollouts/policy", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    headers = {"Authorization": f"Bearer {served.credentials['us-east']}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False) as node:
        for content in (
            b"",
            b"[]",
            b'{"node": "n"}',
            b'{"node": "a b", "decisions": 1}',
            b'{"node": "n", "decisions": -1}',
        ):
            assert (await node.post("/internal/v1/reports", content=content)).status_code == 422, content


async def test_an_apply_says_what_it_holds_back_and_where(make_settings: Callable[..., Settings]) -> None:
    async with fleet(make_settings(), SLOW) as found:
        file = {"version": 1, "plans": {"p": {"priority": 3}}}
        applied = (await found.admin.put("/v1/config", json=file)).raise_for_status().json()
        said = held_back(applied["rollout"])
        number = applied["revision"]
        assert said == (
            f"roll-out of revision {number}: in force on node eu-1 of eu, "
            f"held back elsewhere (revision {number - 1}): plan p"
        )
        await found.served.until_nodes(
            lambda seen: (
                [seen[name]["held_back"] for name in NAMES] == [None, number, number]
                and all(seen[name]["applied_revision"] == number for name in NAMES)
            )
        )
        reader = AdminReader(found.served.url, ADMIN_TOKEN, datetime.now(UTC))
        reading = await asyncio.to_thread(reader.read)
        reader.close()
        assert reading.rollouts == (said,)
        view = compare(reading, None)
        assert said in as_json(view)
        screen = StringIO()
        Console(file=screen, width=200).print(render(view))
        assert said in screen.getvalue()
        assert f"{number} without {number}" in screen.getvalue()
        (await found.admin.post(f"/v1/rollouts/{number}/release")).raise_for_status()
        assert (await found.admin.put("/v1/config", json=file)).json()["rollout"] is None
