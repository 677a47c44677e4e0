"""Denials in the log: found by the request id of their answer, sampled, and without a secret."""

import json
import sys

import httpx
import pytest
from structlog.testing import capture_logs

from data_plane.config.index import RuleIndex
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.pending_check import Refusal
from testing.node import NOWHERE, PUBLIC_KEY, REGION_CREDENTIAL, document_of, key_of, rule, write_snapshot
from tidegate.contract.blocks import Block
from tidegate.contract.config import Client, Plan
from tidegate.contract.decision import CheckRequest
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports

SECRET = "tg_a-secret-of-acme"
CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 2, algorithm="fixed_window"),)),
    Plan(plan="anonymous", limits=(rule(2, "per-ip", 1, scope="ip", algorithm="fixed_window"),)),
    Client(client="acme", plan="p"),
    key_of("acme", SECRET),
]


@pytest.fixture
async def snapshot(tmp_path):
    await write_snapshot(tmp_path / "snapshot", CONFIG)
    return tmp_path / "snapshot"


def test_a_denial_is_found_by_its_request_id_and_holds_no_secret(tmp_path, snapshot, valkey_url):
    port = free_ports(1)[0]
    env = {
        "TIDEGATE_NODE": "n1", "TIDEGATE_REGION": "us-east", "TIDEGATE_PORT": str(port), "TIDEGATE_TRUST": "network",
        "TIDEGATE_REDIS_URL": valkey_url, "TIDEGATE_CONTROL_PLANE_URL": NOWHERE, "TIDEGATE_DRAIN_S": "0",
        "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY, "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL,
        "TIDEGATE_SNAPSHOT_FILE": str(snapshot), "TIDEGATE_LOG_DENIALS_PER_S": "5",
    }  # fmt: skip
    node = Child("node", [sys.executable, "-m", "tidegate", "data-plane"], log_path=tmp_path / "log", env=env)
    node.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            def ready() -> bool:
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.HTTPError:
                    return False

            wait_until_ready(node, ready, timeout_s=30)
            asked = {"api_key": SECRET, "method": "GET", "path": "/reports?token=hush", "request_id": "find-me"}
            answers = [client.post("/v1/check", json=asked) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            for _ in range(20):
                nobody = client.get(
                    "/v1/authorize/x", headers={"x-forwarded-for": "203.0.113.9", "x-api-key": "tg_hush"}
                )
            assert nobody.status_code == 429
            metrics = client.get("/metrics").text
    finally:
        node.stop()
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    denials = [line for line in lines if line["event"] == "denied"]
    first = denials[0]
    assert first["request_id"] == "find-me" == answers[-1].json()["instance"]
    assert (first["client"], first["policies"], first["revision"]) == ("acme", ["hourly"], 1)
    assert 0 < first["retry_after_s"] <= 3600
    assert {"timestamp", "level", "logger"} <= first.keys()
    assert (denials[1]["client"], denials[1]["address"]) == (None, "203.0.113.9")
    assert 3 <= len(denials) < 15  # a sample: the burst of twenty is not all there
    assert f"tidegate_denials_logged_total {float(len(denials))}" in metrics
    for secret in (SECRET, "hush", REGION_CREDENTIAL, valkey_url):
        assert secret not in text


def test_the_sample_has_room_again_as_time_passes_and_says_what_it_left_out():
    class Denied:
        allowed, violated, shown, degraded, shed_s = False, ("hourly",), None, False, 1

    class Asked:
        principal, revision, request_id = None, 7, "id"
        request = type("Request", (), {"ip": None})
        limit_set = type("LimitSet", (), {"endpoint": "get-user"})

    log = DenialLog(2.0)
    with capture_logs() as lines:
        for at_us in (1_000_000, 1_000_001, 1_000_002, 1_000_003, 1_500_003, 1_500_004):
            log.concluded(Asked, Denied, at_us)
    assert (log.logged, log.left_out) == (3, 3)
    assert [line.get("left_out") for line in lines] == [None, None, 2]


def test_a_block_leaves_a_trace_that_says_whom_it_met():
    values = [Plan(plan="p"), Client(client="acme", plan="p"), key_of("acme", SECRET)]
    values.append(Block(block="bad", client="acme", reason_class="abuse"))
    index = RuleIndex.empty("us-east").with_changes([document_of(value) for value in values])

    class Asked:
        request = CheckRequest(api_key=SECRET, ip="203.0.113.9", path="/reports?token=hush")
        decider = type("Decider", (), {"index": index})
        asked_us, revision, request_id = 1_000_000, 7, "find-me"

    log = DenialLog(2.0)
    with capture_logs() as lines:
        log.refused(Asked, Refusal.BLOCKED_ABUSE)
    assert lines == [
        {
            "event": "denied", "log_level": "info", "request_id": "find-me", "cause": "blocked", "client": "acme",
            "endpoint": None, "revision": 7, "reason_class": "abuse", "address": "203.0.113.9",
        }
    ]  # fmt: skip
