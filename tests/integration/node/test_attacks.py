"""What an attacker, or a compromised peer, may send to a node's doors."""

import asyncio

import msgspec
import pytest

from data_plane.config.index import InvalidConfigError, decode_document
from data_plane.config.snapshots import SnapshotFile, UnreadableSnapshotError
from testing.agent import node_with_agent
from testing.node import HOUR_US, key_of, node_client, rule
from tidegate.contract.config import Change, Client, Endpoint, Plan

KEY = "tg_acme"


def config(*limits):
    return [
        Plan(plan="p", limits=limits),
        Client(client="acme", plan="p"),
        key_of("acme", KEY),
        Endpoint(endpoint="export", method="POST", path="/export", cost=1_000),
    ]


async def left(node) -> dict[str, int]:
    answer = await node.post("/v1/check", json={"api_key": KEY, "cost": 0, "explain": True})
    return {limit["policy"]: limit["remaining"] for limit in answer.json()["limits"]}


@pytest.mark.parametrize("other", ["fixed_window", "sliding_window", "token_bucket"])
async def test_a_settlement_gives_back_to_a_log_and_to_what_stands_beside_it(tmp_path, store_url, other):
    limits = rule(1, "log", 100, algorithm="sliding_log"), rule(2, "other", 100, algorithm=other)
    async with node_client(tmp_path, store_url, config(*limits)) as node:
        held = (await node.post("/v1/reservations", json={"api_key": KEY, "cost": 40})).json()
        settled = await node.post("/v1/reservations/settle", json={"reservation": held["reservation"], "cost": 10})
        assert settled.json() == {"returned": 30, "charged": 0, "repeated": False}
        assert await left(node) == {"log": 90, "other": 90}


@pytest.mark.parametrize("mode", ["regional", "shared", "strict"])
@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket"])
async def test_no_true_cost_is_so_large_that_a_limit_begins_again(tmp_path, valkey_url, algorithm, mode):
    limit = rule(1, "monthly", 5_000, window_us=30 * 24 * HOUR_US, algorithm=algorithm, mode=mode)
    async with node_with_agent(tmp_path, valkey_url, config(limit)) as node:
        body = {"api_key": KEY, "cost": 1, "method": "POST", "path": "/export"}
        holds = [(await node.post("/v1/reservations", json=body)).json()["reservation"] for _ in range(3)]
        # at 1,000 a unit: a hair above 2^48, what six bytes hold, and far above 2^49
        for hold, cost in zip(holds, (281_474_976_711, 10**12, 10**12), strict=True):
            settled = await node.post("/v1/reservations/settle", json={"reservation": hold, "cost": cost})
            assert settled.status_code == 200
            assert await left(node) == {"monthly": 0}


async def test_an_estimate_of_nothing_is_settled_at_the_cost_of_the_route(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config(rule(1, "hourly", 5_000))) as node:
        body = {"api_key": KEY, "cost": 0, "method": "POST", "path": "/export"}
        held = (await node.post("/v1/reservations", json=body)).json()["reservation"]
        await node.post("/v1/reservations/settle", json={"reservation": held, "cost": 2})
        assert await left(node) == {"hourly": 3_000}


@pytest.mark.parametrize("lane", [True, False])
async def test_text_that_is_odd_is_answered_like_any_other(tmp_path, valkey_url, lane):
    async with node_client(tmp_path, valkey_url, config(rule(1, "hourly", 100)), lane=lane) as node:
        for member in ("api_key", "client", "ip", "method", "path", "endpoint"):
            for value in (b'"\\ud800"', b'"\\u0000"', b'"\\r\\nx: y"', '"\u017f"'.encode()):
                body = b'{"%s": %s}' % (member.encode(), value)
                asked = {
                    "/v1/check": body,
                    "/v1/check/batch": b'{"checks": [%s]}' % body,
                    "/v1/leases": b'{"units": 1, ' + body[1:],
                }
                for path, content in asked.items():
                    async with asyncio.timeout(5):
                        answer = await node.post(path, content=content)
                    assert answer.status_code in {200, 400, 422}, (path, content)
                    assert "y" not in answer.headers.get("x", "")


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.parametrize(
    "body", [DEEP[:1_500] + DEEP[-1_500:], DEEP[:32_000] + DEEP[-32_000:]], ids=["1,500", "32,000"]
)
async def test_deep_nesting_is_a_bad_request_like_any_other(tmp_path, valkey_url, lane, body):
    async with node_client(tmp_path, valkey_url, config(rule(1, "hourly", 100)), lane=lane) as node:
        asked = {
            "/v1/check": b'{"attributes": %s}' % body,
            "/v1/check/batch": b'{"checks": [{"attributes": %s}]}' % body,
            "/v1/report": b'{"backend": %s}' % body,
            "/v1/leases": b'{"units": %s}' % body,
            "/v1/reservations": b'{"cost": %s}' % body,
            "/v1/reservations/settle": b'{"cost": %s}' % body,
            "/v1/leases/return": b'{"units": %s}' % body,
            "/v1/denials": b'{"denials": [{"attributes": {"a": 1}, "nobody_knows_it": %s}]}' % body,
        }
        for path, content in asked.items():
            for sent in (content, body, b'{"nobody_knows_it": %s}' % body):
                answer = await node.post(path, content=sent)
                assert answer.status_code in {400, 422}, (path, answer.status_code)


def test_deep_nesting_from_a_file_or_the_control_plane_is_a_fault_that_is_told(tmp_path):
    (tmp_path / "snapshot").write_bytes(b"\x91" * 100_000)
    with pytest.raises(UnreadableSnapshotError):
        SnapshotFile(tmp_path / "snapshot").load()
    document = Change("plan", "p", msgspec.Raw(b'{"plan": "p", "limits": [], "more": %s}' % DEEP))
    with pytest.raises(InvalidConfigError):
        decode_document(document)
