"""Nodes follow: snapshots, deltas, ACKs, and the wait for them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.nodes import repository as nodes
from control_plane.nodes.reports import Reports
from control_plane.publishing import repository
from control_plane.push.stream import OpenStreams
from control_plane.settings import Settings
from testing.control_plane import RunningControlPlane, running
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tidegate.contract.config import Ack
from tidegate.contract.status import Hello

HOURLY = {"name": "hourly", "limit": 1000, "window_s": 3600}


async def test_snapshot_then_deltas_reproduce_the_signed_digest(
    served: RunningControlPlane, signing_key: Ed25519PrivateKey
) -> None:
    await served.admin.put("/v1/plans/free", json={"limits": [HOURLY]})
    node = served.node()
    node.public_key = signing_key.public_key()
    async with node.following():
        assert [begin.base for begin in node.begun] == [None]
        await served.admin.put("/v1/clients/acme", json={"plan": "free"})
        made = await served.admin.post("/v1/clients/acme/keys", json={})
        await node.until(int(made.headers["x-tidegate-revision"]))
        removed = await served.admin.delete(f"/v1/clients/acme/keys/{made.json()['key_id']}")
        await node.until(int(removed.headers["x-tidegate-revision"]))
        assert {kind for kind, _ in node.documents} == {"region", "plan", "client"}
        assert node.document("plan", "free")["limits"][0]["window_us"] == 3_600_000_000
        assert all(begin.base is not None for begin in node.begun[1:])
        await node.until_heartbeats(len(node.heartbeats) + 1)
        assert node.heartbeats[-1].digest == node.digest


async def test_a_node_that_comes_back_gets_what_it_missed_and_an_unknown_one_everything(
    served: RunningControlPlane,
) -> None:
    node = served.node()
    async with node.following():
        await node.until(1)
    held, digest, revision = dict(node.documents), node.digest, node.revision
    await served.admin.put("/v1/plans/free", json={})
    await served.admin.delete("/v1/plans/free")
    newest = await served.admin.put("/v1/plans/pro", json={})

    back = served.node()
    back.documents, back.digest, back.revision = held, digest, revision
    async with back.following():
        await back.until(int(newest.headers["x-tidegate-revision"]))
        assert [begin.base for begin in back.begun] == [revision]
        assert ("plan", "pro") in back.documents
    same = served.node()
    same.documents, same.digest, same.revision = dict(back.documents), back.digest, back.revision
    async with same.following():
        assert same.begun == []
        assert same.heartbeats[0].revision == back.revision
    for wrong in (("0" * 64, revision), (digest, 10**6)):
        stranger = served.node()
        stranger.digest, stranger.revision = wrong
        async with stranger.following():
            await stranger.until_begun()
            assert stranger.begun[0].base is None


async def test_agents_are_listed_beside_nodes_and_asked_what_is_newest_hear_it_from_the_database(
    served: RunningControlPlane,
) -> None:
    node, agent = served.node(), served.node("agent-1", role="agent")
    async with node.following(), agent.following():
        known = await served.nodes()
        assert {name: one["role"] for name, one in known.items()} == {"node-1": "node", "agent-1": "agent"}
        made = await served.admin.put("/v1/plans/free", json={"limits": [HOURLY]})
        await agent.until(int(made.headers["x-tidegate-revision"]))
        assert await agent.newest() == (agent.revision, agent.digest)
    nobody = await served.admin.get("/internal/v1/newest", params={"node": "agent-1"})
    assert nobody.status_code in {401, 403}, "a region's credential is needed"


async def test_a_canary_is_a_node_never_an_agent(served: RunningControlPlane) -> None:
    agent, node = served.node("a-first-by-name", role="agent"), served.node("node-1")
    async with agent.following(), node.following():
        await served.admin.put("/v1/rollouts/policy", json={"mode": "canary"})
        made = await served.admin.put("/v1/plans/pro", json={"limits": [HOURLY]})
        assert "x-tidegate-rollout" in made.headers
        await node.until(int(made.headers["x-tidegate-revision"]))
        assert ("plan", "pro") in node.documents
        assert ("plan", "pro") not in agent.documents


async def test_nodes_that_come_together_all_get_everything(served: RunningControlPlane) -> None:
    for number in range(10):
        (await served.admin.put(f"/v1/plans/p{number}", json={"limits": [HOURLY]})).raise_for_status()
    nodes = [served.node(f"node-{number}") for number in range(5)]
    followed = [node.following() for node in nodes]
    await asyncio.gather(*(one.__aenter__() for one in followed))
    try:
        for node in nodes:
            await node.until(11)
            assert len(node.documents) == 11
    finally:
        await asyncio.gather(*(one.__aexit__(None, None, None) for one in followed))


async def test_prefer_wait_holds_the_answer_until_every_connected_node_applied_it(served: RunningControlPlane) -> None:
    wait = {"Prefer": "wait=12"}
    alone = await served.admin.put("/v1/plans/a", json={}, headers=wait)
    assert alone.headers["preference-applied"] == "wait"

    good, slow = served.node("good"), served.node("slow", acks=False)
    async with good.following():
        applied = await served.admin.put("/v1/plans/b", json={}, headers=wait)
        assert applied.headers["preference-applied"] == "wait"
        assert good.revision == int(applied.headers["x-tidegate-revision"])
        assert "preference-applied" not in (await served.admin.put("/v1/plans/c", json={})).headers
        async with slow.following():
            started = time.monotonic()
            held = await served.admin.put("/v1/plans/d", json={}, headers={"Prefer": "wait=1"})
            assert 0.9 < time.monotonic() - started < 10
            assert held.status_code == 201
            assert "preference-applied" not in held.headers
            state = (await served.admin.get(f"/v1/revisions/{held.headers['x-tidegate-revision']}")).json()
            assert [node["node"] for node in state["acked"]] == ["good"]
            assert [node["node"] for node in state["pending"]] == ["slow"]
        # the slow one is gone: nobody waits for it
        freed = await served.admin.put("/v1/plans/e", json={}, headers=wait)
        assert freed.headers["preference-applied"] == "wait"


async def test_nodes_show_what_they_applied_refused_and_whether_they_are_connected(served: RunningControlPlane) -> None:
    node, refusing = served.node("ok"), served.node("refusing", nacks="limit x: cannot be")
    async with node.following(), refusing.following():
        written = await served.admin.put("/v1/plans/a", json={})
        revision = int(written.headers["x-tidegate-revision"])
        await asyncio.gather(node.until(revision), refusing.until(revision))
        await served.until_nodes(lambda nodes: nodes["refusing"]["refused_revision"] == revision)
        nodes = await served.nodes()
        assert nodes["ok"]["connected"] is nodes["refusing"]["connected"] is True
        assert (nodes["ok"]["version"], nodes["ok"]["region"]) == ("test", "us-east")
        assert (nodes["refusing"]["refused_reason"], nodes["refusing"]["applied_revision"]) == ("limit x: cannot be", 0)
        state = (await served.admin.get(f"/v1/revisions/{revision}")).json()
        assert state["refused"] == [{"node": "refusing", "region": "us-east", "reason": "limit x: cannot be"}]
        await served.until_nodes(
            lambda nodes: nodes["ok"]["applied_revision"] == revision and nodes["ok"]["behind"] == 0
        )
    await served.until_nodes(lambda nodes: not any(node["connected"] for node in nodes.values()))
    page = (await served.admin.get("/v1/nodes?limit=1")).json()
    rest = (await served.admin.get("/v1/nodes", params={"cursor": page["next_cursor"]})).json()
    assert [item["node"] for item in page["items"] + rest["items"]] == ["ok", "refusing"]


async def test_a_credential_speaks_for_its_region_alone(served: RunningControlPlane) -> None:
    await served.add_region("eu-west")
    headers = {"Authorization": f"Bearer {served.credentials['eu-west']}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False) as thief:
        stream = await thief.get("/internal/v1/stream", params={"node": "n", "region": "us-east"})
        assert stream.status_code == 403
        known = await thief.post("/internal/v1/acks", json={"node": "n", "revision": 1, "digest": "0" * 64})
        assert known.status_code == 422
        for body in (
            b"",
            b"[]",
            b"{",
            b'{"node": 5}',
            b"[" * 100_000,
            b'{"node": "\\u0000", "revision": 1, "digest": ""}',
            b'{"node": "n", "revision": 1, "digest": "\\u0000"}',
            b'{"node": "\xff", "revision": 1, "digest": ""}',
        ):
            assert (await thief.post("/internal/v1/acks", content=body)).status_code == 422
        for params in ({}, {"node": "a b", "region": "eu-west"}, {"node": "n", "region": "eu-west", "revision": "-1"}):
            assert (await thief.get("/internal/v1/stream", params=params)).status_code == 422


async def test_a_stream_ends_with_its_credential(served: RunningControlPlane) -> None:
    await served.add_region("eu-west")
    await served.add_region("ap-south")
    # an ACK that is refused would end a node otherwise than the stream does
    nodes = {
        region: served.node(f"{region}-1", region, acks=region == "us-east")
        for region in ("us-east", "eu-west", "ap-south")
    }
    async with nodes["us-east"].following(), nodes["eu-west"].following(), nodes["ap-south"].following():
        overlapping = await served.admin.post("/v1/regions/us-east/credentials", json={"overlap_s": 3600})
        assert overlapping.status_code == 201
        assert (await served.admin.post("/v1/regions/eu-west/credentials")).status_code == 201
        assert (await served.admin.delete("/v1/regions/ap-south")).status_code == 204
        async with asyncio.timeout(20):
            await nodes["eu-west"].ended.wait()
            await nodes["ap-south"].ended.wait()
        # whoever learned it hears of nothing that comes
        revision = (await served.admin.put("/v1/plans/later", json={})).headers["x-tidegate-revision"]
        await nodes["us-east"].until(int(revision))
        assert ("plan", "later") in nodes["us-east"].documents
        for region in ("eu-west", "ap-south"):
            assert ("plan", "later") not in nodes[region].documents
        await served.until_nodes(lambda seen: [name for name in seen if seen[name]["connected"]] == ["us-east-1"])


async def test_shutting_down_ends_streams_at_once(make_settings: Callable[..., Settings]) -> None:
    async with running(make_settings(shutdown_grace_s=60), ADMIN_TOKEN) as control_plane:
        await control_plane.add_region("us-east")
        node = control_plane.node(acks=False)  # an ACK that finds nobody would end it otherwise than the stream does
        async with node.following():
            control_plane.server.should_exit = True
            async with asyncio.timeout(15):  # much sooner than a stream's grace is over
                await node.ended.wait()


async def test_a_write_on_one_replica_reaches_nodes_of_another(make_settings: Callable[..., Settings]) -> None:
    async with (
        running(make_settings(), ADMIN_TOKEN) as one,
        running(make_settings(heartbeat_s=30.0), ADMIN_TOKEN) as two,
    ):
        await one.add_region("us-east")
        two.credentials = one.credentials
        node = two.node()
        async with node.following():
            # by notification: the other replica looks by itself only every 30 s
            written = await one.admin.put("/v1/plans/p", json={}, headers={"Prefer": "wait=12"})
            assert written.headers["preference-applied"] == "wait"
            assert node.revision == int(written.headers["x-tidegate-revision"])


async def test_many_nodes_share_one_delta_and_writes_in_a_row_go_together(served: RunningControlPlane) -> None:
    async def made(kind: str) -> float:
        text = (await served.admin.get("/metrics")).text
        name = f'tidegate_control_plane_frames_total{{kind="{kind}"}} '
        return next((float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)), 0.0)

    await served.admin.put("/v1/plans/free", json={})
    nodes = [served.node(f"node-{number}") for number in range(12)]
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node.following())
        assert await made("snapshot") == 1
        before = await made("delta")
        written = await served.admin.put("/v1/clients/acme", json={"plan": "free"})
        await asyncio.gather(*(node.until(int(written.headers["x-tidegate-revision"])) for node in nodes))
        # streams may wake on either side of the notification: two at the most, not twelve
        assert await made("delta") - before <= 2
        await asyncio.gather(
            *(served.admin.put(f"/v1/clients/c{number}", json={"plan": "free"}) for number in range(30))
        )
        newest = (await served.admin.get("/v1/revisions?limit=1")).json()["items"][0]
        await asyncio.gather(*(node.until(newest["revision"]) for node in nodes))
        assert {node.computed_digest() for node in nodes} == {newest["digest"]}
        await served.until_nodes(lambda seen: all(node["behind"] == 0 for node in seen.values()))
        text = (await served.admin.get("/metrics")).text
        assert "tidegate_control_plane_connected_nodes 12.0" in text
        assert "tidegate_control_plane_nacks_total 0.0" in text
        assert 'tidegate_control_plane_push_seconds_bucket{le="+Inf"}' in text


async def test_an_ack_that_comes_late_takes_nothing_back(served: RunningControlPlane) -> None:
    """A node that could not say from when on a cut holds says so again, with the ACK of that revision."""
    node = served.node()
    async with node.following():
        early = {"node": "node-1", "revision": node.revision, "digest": node.digest}
        made = await served.admin.put("/v1/plans/free", json={"limits": [HOURLY]}, headers={"Prefer": "wait=10"})
        newest = int(made.headers["x-tidegate-revision"])
        applied = (await served.nodes())["node-1"]
        assert applied["applied_revision"] == newest
        credential = {"Authorization": f"Bearer {served.credentials['us-east']}"}
        answer = await served.admin.post("/internal/v1/acks", json=early | {"effective": {"1": 5}}, headers=credential)
        assert answer.status_code == 204, answer.text
        after = (await served.nodes())["node-1"]
        assert (after["applied_revision"], after["applied_at"]) == (newest, applied["applied_at"])


Step = Callable[[AsyncSession], Awaitable[None]]


def _seen(is_open: str, closed: str = "") -> Step:
    """A heartbeat's writes, of nodes with names of one letter."""
    return lambda session: nodes.streams_seen(session, list(is_open), list(closed))


def _acked(applied: str, refused: str = "", **more: dict[int, int]) -> Step:
    acks = [Ack(revision=1, node=name, digest="0" * 64, **more) for name in applied]
    acks += [Ack(revision=1, node=name, digest="0" * 64, error="no") for name in refused]
    return lambda session: nodes.acknowledged(session, [nodes.RegionAck("us-east", ack) for ack in acks])


@pytest.mark.parametrize(
    ("first", "other", "then"),
    [
        pytest.param(_acked("a"), _seen("za"), _acked("z"), id="heartbeats"),
        pytest.param(_acked("a"), _seen("z", "a"), _acked("z"), id="a stream that closed"),
        pytest.param(_seen("a"), _acked("z", refused="a"), _seen("z"), id="an ACK beside a refusal"),
        pytest.param(
            _acked("a", effective={1: 5}), lambda session: nodes.forget_effects(session, 1),
            _acked("z", effective={1: 5}), id="a move that is over",
        ),
    ],
)  # fmt: skip
async def test_who_writes_the_same_nodes_waits_for_the_other(
    make_settings: Callable[..., Settings], first: Step, other: Step, then: Step
) -> None:
    """Postgres would end one of two that hold what the other wants, and log a deadlock."""
    url = make_settings().database_url.get_secret_value()
    database = Database(url, connect_timeout_s=10.0, command_timeout_s=10.0, pool_size=5)
    try:
        async with database.transaction() as session:
            for name in "za":  # in the table they stand as they came
                await nodes.stream_opened(session, Hello(region="us-east", node=name), name, applied=0)
                await _acked(name, effective={1: 4})(session)
        async with asyncio.TaskGroup() as group, database.transaction() as session:
            await first(session)
            waiting = group.create_task(_apart(database, other))
            pid = await repository.pid_of(session)
            while not await _blocks_anybody(database, pid):
                await asyncio.sleep(0.01)
            await then(session)
        assert waiting.done()
    finally:
        await database.close()


async def _apart(database: Database, step: Step) -> None:
    async with database.transaction() as session:
        await step(session)


async def _blocks_anybody(database: Database, pid: int) -> bool:
    async with database.read() as session:  # within one transaction Postgres shows what waits as it was at first
        return await repository.blocks_anybody(session, pid)


async def test_a_heartbeat_waits_for_no_stream_that_opened_while_it_waited(
    make_settings: Callable[..., Settings],
) -> None:
    """That node is not among those that it locked in order, and whoever holds it may want one of these."""
    url = make_settings().database_url.get_secret_value()
    database = Database(url, connect_timeout_s=10.0, command_timeout_s=10.0, pool_size=5)
    streams = OpenStreams(database, 10.0, Reports(database), _any_credential)
    try:
        await streams.opened(Hello(region="us-east", node="b"), "b", "credential", applied=0)
        async with database.transaction() as holding_a:
            async with database.transaction() as holding_b:
                await _acked("b")(holding_b)
                heartbeat = asyncio.create_task(streams.record())
                pid = await repository.pid_of(holding_b)
                while not await _blocks_anybody(database, pid):
                    await asyncio.sleep(0.01)
                await streams.opened(Hello(region="us-east", node="a"), "a", "credential", applied=0)
                await _acked("a")(holding_a)
            await asyncio.wait_for(heartbeat, 5)
    finally:
        await database.close()


async def _any_credential(_: AsyncSession) -> set[str]:
    return {"credential"}
