"""Shares move without a moment of too much: the cut, every node's word, then the raise; and demand moves them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.canary.placement import CanaryPlacement
from control_plane.database import Database
from control_plane.derivation import derive
from control_plane.publishing.repository import Signer
from control_plane.publishing.writer import ConfigWriter
from control_plane.quotas import jobs as mover
from control_plane.quotas import service
from control_plane.quotas.jobs import RebalanceJob
from control_plane.quotas.rebalancing import Balancing
from control_plane.settings import Settings
from control_plane.usage.partitions import Partitions
from control_plane.usage.repository import demand
from control_plane.web.etags import Preconditions
from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.config.strict_limits import schedule_of
from testing.control_plane import FollowingNode, RunningControlPlane, running
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tests.reference.shares import quota_at
from tidegate.contract.config import Change
from tidegate.stack.postgres import PostgresServer

STRICT = {"name": "hourly", "limit": 1000, "window_s": 3600, "mode": "strict", "algorithm": "fixed_window"}
QUOTA = "/v1/quotas/free/hourly"
REGIONS = ("eu", "us")
WAIT_S = 15.0
FAR_US = 4_000_000_000_000_000
MAKE_PLACEMENT = partial(CanaryPlacement, heartbeat_s=5.0)
HOUR_US = 3_600_000_000
AHEAD = range(4)
"""Windows that are looked at, from the present one on."""
OVERRIDE = "/v1/clients/acme/overrides/hourly"


def said(from_us: int) -> Callable[[FollowingNode], dict[int, int]]:
    """A node that says of every limit of the plan that its cut holds from then on."""

    def effective(node: FollowingNode) -> dict[int, int]:
        return {rule["id"]: from_us for rule in node.document("plan", "free").get("limits", ())}

    return effective


def rule_of(node: FollowingNode) -> dict[str, Any]:
    rule: dict[str, Any] = node.document("plan", "free")["limits"][0]
    return rule


async def until_view(admin: httpx.AsyncClient, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_S):
        while True:
            view: dict[str, Any] = (await admin.get(QUOTA)).json()
            if holds(view):
                return view
            await asyncio.sleep(0.02)


async def prepared(control_plane: RunningControlPlane, limit: dict[str, Any]) -> None:
    for region in REGIONS:
        await control_plane.add_region(region)
    made = await control_plane.admin.put("/v1/plans/free", json={"limits": [limit]})
    made.raise_for_status()


@asynccontextmanager
async def two_regions(settings: Settings, limit: dict[str, Any]) -> AsyncIterator[RunningControlPlane]:
    async with running(settings, ADMIN_TOKEN) as control_plane:
        await prepared(control_plane, limit)
        yield control_plane


async def test_the_raise_follows_the_last_acknowledgement(make_settings: Callable[..., Settings]) -> None:
    limit = STRICT
    async with two_regions(make_settings(), limit) as served:
        eu, us = served.node("eu-1", "eu", acks=False), served.node("us-1", "us", effective=said(FAR_US))
        async with eu.following(), us.following():
            assert rule_of(us)["shares"] == {"eu": 500, "us": 500}
            tag = (await served.admin.get(QUOTA)).headers["etag"]
            put = await served.admin.put(QUOTA, json={"shares": {"us": 0.8, "eu": 0.2}}, headers={"If-Match": tag})
            cut_revision = int(put.headers["x-tidegate-revision"])
            view = put.json()
            assert (view["units"], view["in_force"]) == ({"eu": 200, "us": 800}, {"eu": 200, "us": 500})
            await us.until(cut_revision)
            await eu.until(cut_revision)
            cut = rule_of(us)["steps"]
            assert cut[0]["shares"] == {"eu": 500, "us": 500}
            assert cut[1]["shares"] == {"eu": 200, "us": 500}
            assert abs(cut[1]["from_us"] - time.time_ns() // 1000) < 60_000_000
            waiting = f"eu/eu-1 has revision 0, not {cut_revision}"
            view = await until_view(served.admin, lambda view: view["move"]["waiting_for"] == [waiting])
            run = await served.admin.post("/v1/jobs/quota-moves/run", headers={"Prefer": "wait=10"})
            assert run.json()["last_detail"] == "No move can go on."
            # the same shares once more, or a write to the plan, neither restart the move nor end it
            again = await served.admin.put(QUOTA, json={"shares": {"us": 0.8, "eu": 0.2}})
            assert again.json()["move"]["cut_revision"] == cut_revision
            await served.admin.put("/v1/plans/free", json={"priority": 7, "limits": [limit]})
            eu_says = said(FAR_US + 5)
            eu.effective = eu_says
            await eu.until(cut_revision + 1)
            assert rule_of(eu)["steps"] == cut
            await eu.acknowledge()
            view = await until_view(served.admin, lambda view: view["move"] is None)
            assert view["in_force"] == {"eu": 200, "us": 800}
            await us.until(cut_revision + 2)
            raised = rule_of(us)["steps"]
            assert raised[:2] == cut
            assert raised[2] == {"from_us": FAR_US + 5, "limit": 1000, "shares": {"eu": 200, "us": 800}}
            revision = (await served.admin.get(f"/v1/revisions/{cut_revision + 2}")).json()
            assert (revision["author"], revision["reason"]) == ("quotas", "hourly: every cut is acknowledged")
            # a move is no obstacle to going back to before it began: that is a move too
            back = await served.admin.post(f"/v1/revisions/{cut_revision - 1}/rollback", json={})
            assert back.status_code == 200, back.text
            assert (await served.admin.get(QUOTA)).json()["units"] == {"eu": 500, "us": 500}
            again = await served.admin.put(QUOTA, json={"shares": {"us": 0.8, "eu": 0.2}})
            assert again.json()["shares"] == {"us": 0.8, "eu": 0.2}
            # shares and ETag are what they were: only the way there changed
            assert (await served.admin.get(QUOTA)).headers["etag"] == put.headers["etag"]


async def test_a_region_that_cannot_acknowledge_holds_up_the_raise_until_it_is_freed(
    make_settings: Callable[..., Settings],
) -> None:
    async with two_regions(make_settings(), STRICT) as served:
        us = served.node("us-1", "us", effective=said(FAR_US))
        async with us.following():
            eu = served.node("eu-1", "eu")
            async with eu.following():
                await eu.until(1)
            await served.until_nodes(lambda nodes: not nodes["eu-1"]["connected"])
            await served.admin.put(QUOTA, json={"shares": {"us": 1.0}})
            view = await until_view(
                served.admin, lambda view: view["move"]["waiting_for"] == ["no node of eu is connected"]
            )
            assert view["in_force"] == {"eu": 0, "us": 500}
            wrong = await served.admin.post(f"{QUOTA}/free", json={"region": "mars"})
            assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "region")
            freed = await served.admin.post(f"{QUOTA}/free", json={"region": "eu"})
            assert freed.json()["move"]["freed"] == ["eu"]
            view = await until_view(served.admin, lambda view: view["move"] is None)
            assert view["in_force"] == {"eu": 0, "us": 1000}
            assert (await served.admin.post(f"{QUOTA}/free", json={"region": "eu"})).status_code == 409


async def test_a_crash_between_cut_and_raise_is_survived(make_settings: Callable[..., Settings]) -> None:
    async with two_regions(make_settings(), STRICT) as served:
        eu = served.node("eu-1", "eu", acks=False)
        async with eu.following():
            put = await served.admin.put(QUOTA, json={"shares": {"us": 0.9, "eu": 0.1}})
            await eu.until(int(put.headers["x-tidegate-revision"]))
        credentials = served.credentials
    async with running(make_settings(), ADMIN_TOKEN) as after:
        after.credentials = credentials
        assert (await after.admin.get(QUOTA)).json()["in_force"] == {"eu": 100, "us": 500}
        eu = after.node("eu-1", "eu", effective=said(FAR_US))
        async with eu.following():
            view = await until_view(after.admin, lambda view: view["move"] is None)
        assert view["in_force"] == {"eu": 100, "us": 900}


async def test_a_cut_that_no_node_spoke_of_is_made_again(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        """The clock of a replica that is behind the database's."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Behind":
            return super().now(tz) - timedelta(hours=2)

    monkeypatch.setattr(mover, "CUT_AGAIN_S", 0.5)
    monkeypatch.setattr(mover, "datetime", Behind, raising=False)
    async with two_regions(make_settings(), STRICT) as served:
        # it applied the cut, and died before it could say from when on it holds
        eu = served.node("eu-1", "eu", effective=lambda _: {})
        async with eu.following():
            put = await served.admin.put(QUOTA, json={"shares": {"us": 0.9, "eu": 0.1}})
            cut_revision = int(put.headers["x-tidegate-revision"])
            silent = "no node of eu confirmed from when on its cut holds"
            await until_view(served.admin, lambda view: view["move"]["waiting_for"] == [silent])
            eu.effective = said(FAR_US)
            view = await until_view(served.admin, lambda view: view["move"] is None)
            assert view["in_force"] == {"eu": 100, "us": 900}
            await eu.until(cut_revision + 2)
            reason = (await served.admin.get(f"/v1/revisions/{cut_revision + 1}")).json()["reason"]
            assert reason == "hourly: cut again, since eu did not confirm from when on it holds"


async def test_a_cut_that_is_made_while_the_raise_waits_for_its_turn_is_waited_for(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    settings = make_settings()
    async with two_regions(settings, STRICT) as served, second_writer(settings) as writer:
        eu = served.node("eu-1", "eu", acks=False, effective=said(FAR_US))
        async with eu.following():
            put = await served.admin.put(QUOTA, json={"shares": {"us": 0.8, "eu": 0.2}})
            await eu.until(int(put.headers["x-tidegate-revision"]))
            async with writer.begin("me", None) as write:
                await eu.acknowledge()
                async with asyncio.timeout(WAIT_S):
                    while postgres_server.execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == "0":
                        await asyncio.sleep(0.02)
                await service.replace(write, "free", "hourly", {"us": 0.9, "eu": 0.1}, Preconditions())
            ran = await served.admin.post("/v1/jobs/quota-moves/run", headers={"Prefer": "wait=10"})
            assert ran.json()["last_detail"] == "No move can go on."
            assert (await served.admin.get(QUOTA)).json()["in_force"] == {"eu": 100, "us": 500}


async def test_regional_shares_rise_when_the_window_of_the_cut_is_over(make_settings: Callable[..., Settings]) -> None:
    limit = STRICT | {"mode": "regional", "window_s": 2}
    async with two_regions(make_settings(), limit) as served:
        eu, us = served.node("eu-1", "eu"), served.node("us-1", "us")
        async with eu.following(), us.following():
            await served.until_nodes(lambda nodes: nodes["eu-1"]["behind"] == 0)
            put = await served.admin.put(QUOTA, json={"shares": {"us": 0.8, "eu": 0.2}})
            assert put.json()["in_force"] == {"eu": 200, "us": 500}
            view = await until_view(served.admin, lambda view: view["move"]["raise_at"])
            raise_at = datetime.fromisoformat(view["move"]["raise_at"])
            assert raise_at.timestamp() % 2 == 0
            view = await until_view(served.admin, lambda view: view["move"] is None)
            assert datetime.now(UTC) >= raise_at
            # on a busy machine the move may have been cut again, which is a revision more
            newest = (await served.admin.get("/v1/revisions?limit=1")).json()["items"][0]["revision"]
            assert newest > int(put.headers["x-tidegate-revision"])
            await us.until(newest)
            assert rule_of(us)["shares"] == {"eu": 200, "us": 800}
            assert "steps" not in rule_of(us)


async def test_regional_shares_that_a_roll_out_held_back_rise_a_window_after_all_nodes_have_the_cut(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer, database_name: str
) -> None:
    limit = STRICT | {"mode": "regional", "window_s": 86_400}
    async with two_regions(make_settings(), limit) as served:
        eu, us = served.node("eu-1", "eu"), served.node("us-1", "us")
        async with eu.following(), us.following():
            await served.until_nodes(lambda nodes: len(nodes) == 2 and not any(n["behind"] for n in nodes.values()))
            policy = {"mode": "canary", "region": "us", "node": "us-1", "node_pause_s": 3600}
            (await served.admin.put("/v1/rollouts/policy", json=policy)).raise_for_status()
            put = await served.admin.put(QUOTA, json={"shares": {"us": 0.8, "eu": 0.2}})
            revision = int(put.headers["x-tidegate-rollout"])
            # both have this revision, and eu spends what it had before
            await until_view(served.admin, lambda view: view["move"]["raise_at"])
            assert rule_of(eu)["shares"] == {"eu": 500, "us": 500}
            await asyncio.to_thread(
                postgres_server.execute, "UPDATE quota_moves SET raise_at_us = 1", database=database_name
            )
            released = await served.admin.post(f"/v1/rollouts/{revision}/release", json={})
            released.raise_for_status()
            view = await until_view(served.admin, lambda view: view["move"] is None or view["move"]["raise_at"])
            assert view["in_force"] == {"eu": 200, "us": 500}
            assert rule_of(eu)["shares"] == {"eu": 200, "us": 500}
            assert datetime.fromisoformat(view["move"]["raise_at"]) > datetime.now(UTC)


async def test_a_roll_out_whose_first_nodes_spoke_of_the_cut_costs_no_further_wait(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer, database_name: str
) -> None:
    async with two_regions(make_settings(), STRICT) as served:
        spoken: list[list[dict[str, Any]]] = []

        def once_for_each_cut(node: FollowingNode) -> dict[int, int]:
            steps = rule_of(node).get("steps", [])
            if not steps or steps in spoken:
                return {}
            spoken.append(steps)
            return said(FAR_US)(node)

        eu, us = served.node("eu-1", "eu", effective=once_for_each_cut), served.node("us-1", "us")
        async with eu.following(), us.following():
            await served.until_nodes(lambda nodes: len(nodes) == 2 and not any(n["behind"] for n in nodes.values()))
            policy = {"mode": "canary", "region": "eu", "node": "eu-1", "node_pause_s": 3600}
            (await served.admin.put("/v1/rollouts/policy", json=policy)).raise_for_status()
            put = await served.admin.put(QUOTA, json={"shares": {"us": 0.8, "eu": 0.2}})
            rollout = put.headers["x-tidegate-rollout"]
            await until_view(served.admin, lambda view: spoken and not view["move"]["waiting_for"])
            longer_s = mover.CUT_AGAIN_S + 1
            await asyncio.to_thread(  # what it waits for may be this loop's own transaction
                postgres_server.execute,
                f"UPDATE quota_moves SET cut_at = cut_at - interval '{longer_s} s'",
                database=database_name,
            )
            (await served.admin.put("/v1/rollouts/policy", json=policy | {"mode": "immediate"})).raise_for_status()
            (await served.admin.post(f"/v1/rollouts/{rollout}/release", json={})).raise_for_status()
            view = await until_view(served.admin, lambda view: view["move"] is None)
            assert view["in_force"] == {"eu": 200, "us": 800}
            async with asyncio.timeout(10):  # the move is over before the node has been sent the raise
                while len(spoken) < 3:
                    await asyncio.sleep(0.01)
            assert len(spoken) == 3, "the cut, the cut again, the raise"


async def test_what_nodes_say_of_cuts_is_checked(served: RunningControlPlane) -> None:
    await served.admin.put("/v1/plans/p", json={})
    head = (await served.admin.get("/v1/revisions?limit=1")).json()["items"][0]
    ack = {"node": "n", "revision": head["revision"], "digest": head["digest"]}
    headers = {"Authorization": f"Bearer {served.credentials['us-east']}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False) as node:
        for effective in ({"0": 5}, {"1": -5}, {"1": 2**60}, {"x": 5}, {str(n): 1 for n in range(1, 10_003)}, [1]):
            answer = await node.post("/internal/v1/acks", json=ack | {"effective": effective})
            assert answer.status_code == 422, effective
        assert (await node.post("/internal/v1/acks", json=ack | {"effective": {"1": 5}})).status_code == 204


@asynccontextmanager
async def second_writer(settings: Settings) -> AsyncIterator[ConfigWriter]:
    """Writes as another replica does."""
    url = settings.database_url.get_secret_value()
    database = Database(url, connect_timeout_s=10.0, command_timeout_s=20.0, pool_size=2)
    try:
        yield ConfigWriter(database, Signer(settings.signing_key()), MAKE_PLACEMENT, derive)
    finally:
        await database.close()


async def test_auto_shares_follow_demand_and_say_why(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer, database_name: str
) -> None:
    settings = make_settings()
    async with two_regions(settings, STRICT | {"mode": "regional"}) as served:
        await served.admin.put("/v1/plans/other", json={"limits": [STRICT]})
        await served.admin.put(QUOTA, json={"shares": "auto"})
        url = settings.database_url.get_secret_value()
        database = Database(url, connect_timeout_s=10.0, command_timeout_s=10.0, pool_size=2)
        try:
            now = datetime.now(UTC)
            await Partitions(database).ensure({now.date()})
            await asyncio.to_thread(
                postgres_server.execute,
                "INSERT INTO usage_totals"
                " (hour, plan, limit_name, endpoint, region, allowed, denied, shadow_denied, cost, denied_cost)"
                " SELECT date_trunc('hour', now()), 'free', name, 'e', region, 1, 1, 0, units, units"
                " FROM (VALUES ('hourly', 'us', 450), ('hourly', 'eu', 50), ('', 'eu', 9000)) AS v"
                " (name, region, units)",
                database=database_name,
            )
            signer = Signer(settings.signing_key())
            writer = ConfigWriter(database, signer, MAKE_PLACEMENT, derive)
            balancer = RebalanceJob(database, writer, demand, Balancing(), 60.0)
            assert await balancer.run() == "1 of 1 limits with auto shares moved."
            view = (await served.admin.get(QUOTA)).json()
            assert view["shares"] == "auto"
            assert view["balance"]["demand"] == {"eu": 100, "us": 900}
            assert view["balance"]["moved"]
            # half of the way to the floor and a part of what is above it
            assert view["units"] == {"eu": 320, "us": 680}
            assert view["balance"]["reason"] == "Demand is eu 10%, us 90%: eu 50% to 32%, us 50% to 68%."
            for _ in range(5):
                await balancer.run()
            settled = (await served.admin.get(QUOTA)).json()
            assert "less than 5%" in settled["balance"]["reason"]
            assert not settled["balance"]["moved"]
            # back to explicit shares, the rebalancer leaves it alone
            await served.admin.put(QUOTA, json={"shares": {"us": 0.5, "eu": 0.5}})
            assert await balancer.run() == "0 of 0 limits with auto shares moved."
        finally:
            await database.close()


async def test_who_is_left_when_a_region_goes_that_had_all_shares_equally(api: httpx.AsyncClient) -> None:
    for region in ("us", "eu"):
        await api.put(f"/v1/regions/{region}", json={})
    await api.put("/v1/plans/p", json={"limits": [{"name": "h", "limit": 100, "window_s": 3600, "mode": "strict"}]})
    for shares in ({"us": 1.0, "eu": 0.0}, "auto"):
        (await api.put("/v1/quotas/p/h", json={"shares": shares})).raise_for_status()
    (await api.delete("/v1/regions/us")).raise_for_status()
    assert (await api.get("/v1/quotas/p/h")).json()["units"] == {"eu": 100}
    job = await api.post("/v1/jobs/quota-rebalancing/run", headers={"Prefer": "wait=10"})
    assert job.json()["last_outcome"] == "done", job.text


async def test_a_limit_that_must_wait_for_a_roll_out_keeps_no_other_from_being_balanced(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings()
    limit = STRICT | {"mode": "regional"}
    async with two_regions(settings, limit) as served:
        for plan in ("free", "pro", "team"):
            await served.admin.put(f"/v1/plans/{plan}", json={"limits": [limit]})
            (await served.admin.put(f"/v1/quotas/{plan}/hourly", json={"shares": "auto"})).raise_for_status()
        us = served.node("us-1", "us")
        async with us.following():
            await served.until_nodes(lambda nodes: nodes["us-1"]["behind"] == 0)
            policy = {"mode": "canary", "region": "us", "node": "us-1", "node_pause_s": 3600}
            (await served.admin.put("/v1/rollouts/policy", json=policy)).raise_for_status()
            ids = [us.document("plan", plan)["limits"][0]["id"] for plan in ("free", "pro", "team")]

            async def asked(_: AsyncSession) -> dict[int, dict[str, float]]:
                return {ids[0]: {"us": 900, "eu": 100}, ids[1]: {"us": 900, "eu": 100}, ids[2]: {"us": 500, "eu": 500}}

            url = settings.database_url.get_secret_value()
            database = Database(url, connect_timeout_s=10.0, command_timeout_s=10.0, pool_size=2)
            try:
                writer = ConfigWriter(database, Signer(settings.signing_key()), MAKE_PLACEMENT, derive)
                balancer = RebalanceJob(database, writer, asked, Balancing(), 60.0)
                assert await balancer.run() == "1 of 3 limits with auto shares moved."
            finally:
                await database.close()
            team = (await served.admin.get("/v1/quotas/team/hourly")).json()
            assert team["balance"]["demand"] == {"eu": 500, "us": 500}


class Divisions:
    """What each region owned of the client's limit by every version that its node had, as nodes read documents."""

    def __init__(self, *nodes: FollowingNode) -> None:
        self._now = time.time_ns() // 1000 // HOUR_US
        self.raised_us = (self._now + 2) * HOUR_US
        """Nodes say that cuts hold from then on: not from the next window, which could begin while the test runs."""
        self._nodes = {node.region: node for node in nodes}
        self._seen: dict[str, list[dict[int, int]]] = {region: [] for region in self._nodes}

    async def see(self, revision: int) -> None:
        """Note this version, once every node has it."""
        for region, node in self._nodes.items():
            await node.until(revision)
            changes = [Change(kind, id, msgspec.Raw(body)) for (kind, id), body in node.documents.items()]
            index = RuleIndex.of(region, ConfigSet.empty().with_changes(changes))
            principal = index.clients.get("acme")
            limits = () if principal is None else index.book.all_limits(principal.client, 0.0)
            shares = dict.fromkeys(AHEAD, 0)
            for rule in limits:
                schedule = schedule_of(rule, region)
                shares = {ahead: quota_at(schedule, self._now + ahead).share for ahead in AHEAD}
            self._seen[region].append(shares)

    def newest(self) -> dict[str, int]:
        """By the newest version, in the last window that is looked at."""
        return {region: seen[-1][AHEAD[-1]] for region, seen in self._seen.items()}

    def heard(self) -> None:
        """Every node goes by the newest version alone from now on; what it spent in the present window is spent."""
        for seen in self._seen.values():
            seen[:] = [seen[-1] | {0: max(shares[0] for shares in seen)}]

    def at_most(self, limit: int) -> None:
        """Each region may go by any version since the one that it acknowledged."""
        for ahead in AHEAD:
            assert sum(max(shares[ahead] for shares in seen) for seen in self._seen.values()) <= limit, self._seen


async def test_an_override_is_divided_anew_by_cut_and_raise_when_the_limit_changes_with_its_shares(
    make_settings: Callable[..., Settings],
) -> None:
    """No region has less of the limit than before, but of the override one has."""
    async with two_regions(make_settings(), STRICT) as served:
        await served.admin.put(QUOTA, json={"shares": {"eu": 0.6, "us": 0.4}})
        await served.admin.put("/v1/clients/acme", json={"plan": "free"})
        put = await served.admin.put(OVERRIDE, json={"limit": 100})
        eu, us = served.node("eu-1", "eu", acks=False), served.node("us-1", "us", effective=said(FAR_US))
        async with eu.following(), us.following():
            divisions = Divisions(eu, us)
            await divisions.see(int(put.headers["x-tidegate-revision"]))
            assert divisions.newest() == {"eu": 60, "us": 40}
            limit = {"limit": "2000/h", "mode": "strict", "algorithm": "fixed_window", "shares": {"eu": 0.3, "us": 0.7}}
            put = await served.admin.put(
                "/v1/config", json={"version": 1, "plans": {"free": {"limits": {"hourly": limit}}}}
            )
            assert put.status_code == 200, put.text
            cut_revision = int(put.headers["x-tidegate-revision"])
            await divisions.see(cut_revision)
            divisions.at_most(100)
            # the limit itself is what it shall be at once, divided in this window as before
            assert [step["shares"] for step in rule_of(us)["steps"]] == [
                {"eu": 1200, "us": 800},
                {"eu": 600, "us": 800},
            ]
            view = (await served.admin.get(QUOTA)).json()
            assert (view["in_force"], view["units"]) == ({"eu": 600, "us": 800}, {"eu": 600, "us": 1400})
            assert view["move"]["cut_revision"] == cut_revision
            eu.effective = said(FAR_US)
            await eu.acknowledge()
            await until_view(served.admin, lambda view: view["move"] is None)
            await eu.until(cut_revision + 1)
            assert [step["shares"] for step in rule_of(eu)["parts"]][-1] == {"eu": 3 * 10**11, "us": 7 * 10**11}


async def test_windows_stay_divided_as_they_were_when_figures_change_with_shares_or_after_them(
    make_settings: Callable[..., Settings],
) -> None:
    """What a region spent of the larger limit is spent, whatever the limit was in between and for whom."""
    async with two_regions(make_settings(), STRICT) as served:
        put = await served.admin.put("/v1/clients/acme", json={"plan": "free"})
        eu, us = served.node("eu-1", "eu"), served.node("us-1", "us")
        divisions = Divisions(eu, us)
        eu.effective = us.effective = said(divisions.raised_us)

        async def change(path: str, body: dict[str, Any], limit: int) -> None:
            put = await served.admin.put(path, json=body)
            assert put.is_success, put.text
            await divisions.see(int(put.headers["x-tidegate-revision"]))
            divisions.at_most(limit)
            await until_view(served.admin, lambda view: view["move"] is None)
            await divisions.see((await served.admin.get("/v1/revisions?limit=1")).json()["items"][0]["revision"])
            divisions.at_most(limit)
            divisions.heard()

        async with eu.following(), us.following():
            await divisions.see(int(put.headers["x-tidegate-revision"]))
            await change("/v1/plans/free", {"limits": [STRICT | {"limit": 100}]}, 1000)
            await change(QUOTA, {"shares": {"eu": 0.9, "us": 0.1}}, 1000)
            await change("/v1/plans/free", {"limits": [STRICT]}, 1000)
            assert divisions.newest() == {"eu": 900, "us": 100}
            limit = {
                "limit": "2000/h",
                "mode": "strict",
                "algorithm": "fixed_window",
                "shares": {"eu": 0.45, "us": 0.55},
            }
            file = {"version": 1, "plans": {"free": {"limits": {"hourly": limit}}}}
            await change("/v1/config", file, 2000)
            assert divisions.newest() == {"eu": 900, "us": 1100}
            await change(OVERRIDE, {"limit": 2000}, 2000)


@pytest.mark.parametrize("moving", [False, True])
async def test_a_limit_that_a_rollback_brings_back_goes_on_from_the_shares_that_it_had(
    make_settings: Callable[..., Settings], moving: bool
) -> None:
    async with two_regions(make_settings(), STRICT) as served:
        put = await served.admin.put("/v1/clients/acme", json={"plan": "free"})
        eu, us = served.node("eu-1", "eu", acks=not moving), served.node("us-1", "us")
        divisions = Divisions(eu, us)
        eu.effective = us.effective = said(divisions.raised_us)

        async def changed(answer: httpx.Response) -> int:
            assert answer.is_success, answer.text
            revision = int(answer.headers["x-tidegate-revision"])
            await divisions.see(revision)
            divisions.at_most(1000)
            return revision

        async with eu.following(), us.following():
            await changed(put)
            revision = await changed(await served.admin.put(QUOTA, json={"shares": {"eu": 0.1, "us": 0.9}}))
            if not moving:
                await until_view(served.admin, lambda view: view["move"] is None)
                revision += 1
                await divisions.see(revision)
                divisions.heard()
            await changed(await served.admin.put("/v1/plans/free", json={"limits": []}))
            (await served.admin.post("/v1/jobs/retention/run", headers={"Prefer": "wait=20"})).raise_for_status()
            await changed(await served.admin.post(f"/v1/revisions/{revision}/rollback", json={}))
            assert divisions.newest() == ({"eu": 100, "us": 500} if moving else {"eu": 100, "us": 900})
            eu.acks = True
            await eu.acknowledge()
            await until_view(served.admin, lambda view: view["in_force"] == {"eu": 100, "us": 900})
