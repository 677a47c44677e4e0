"""Who may report load, what is refused, and that what is refused changes nothing."""

import json
import time

import pytest

from testing.node import GATEWAY_TOKEN, node_client
from tidegate.contract.config import Endpoint, Gateway
from tidegate.contract.credentials import make_credential, secret_sha256
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter

SECRET = make_credential("reporter", bytes(range(2, 34)))
OLD_SECRET = make_credential("reporter", bytes(range(3, 35)))
OVER_SECRET = make_credential("reporter", bytes(range(4, 36)))
CONFIG = [
    AdaptivePolicy(policy="protect", min_reporters=1),
    Backend(backend="users", adaptive="protect"),
    Backend(backend="billing", adaptive="protect"),
    Endpoint(endpoint="get-user", method="GET", path="/users/{id}", backend="users"),
    Endpoint(endpoint="health", method="GET", path="/health"),
    Gateway(sha256=secret_sha256(GATEWAY_TOKEN), gateway="edge"),
    Reporter(
        reporter="lb", sha256=secret_sha256(SECRET), backends=("users",),
        previous_sha256=secret_sha256(OLD_SECRET), previous_expires_at=4_000_000_000.0,
    ),
    Reporter(
        reporter="lb2", sha256=secret_sha256("none"), backends=("users",),
        previous_sha256=secret_sha256(OVER_SECRET), previous_expires_at=1.0,
    ),
]  # fmt: skip


@pytest.fixture(params=[True, False], ids=["lane", "asgi"])
async def node(tmp_path, valkey_url, request):
    async with node_client(tmp_path, valkey_url, CONFIG, lane=request.param, trust="token") as client:
        yield client


async def load(node, body, secret=SECRET):
    headers = {} if secret is None else {"x-tidegate-token": secret}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await node.post("/v1/load", content=content, headers=headers)


async def counted(node, name):
    lines = [line for line in (await node.get("/metrics")).text.splitlines() if line.startswith(name)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize(
    ("body", "secret", "status", "reason", "field"),
    [
        ({"backend": "users", "cpu": 9.0}, None, 401, "unauthenticated", None),
        ({"backend": "users", "cpu": 9.0}, "tgl_wrong", 401, "unauthenticated", None),
        ({"backend": "users", "cpu": 9.0}, GATEWAY_TOKEN, 401, "unauthenticated", None),
        ({"backend": "users", "cpu": 9.0}, OVER_SECRET, 401, "unauthenticated", None),
        ({"backend": "billing", "cpu": 9.0}, SECRET, 403, "forged", "backend"),
        ({"reports": [{"backend": "users", "cpu": 1}, {"backend": "billing", "cpu": 9}]}, SECRET, 403, "forged",
         "reports[1].backend"),
        (b'{"backend": "users", "cpu": NaN}', SECRET, 400, "malformed", None),
        (b'{"backend": "users", "cpu": 1e999}', SECRET, 422, "malformed", "cpu"),
        (b"\xff\xfe", SECRET, 400, "malformed", None),
        ({"backend": "users", "cpu": -0.5}, SECRET, 422, "malformed", "cpu"),
        ({"backend": "users", "cpu": "0.5"}, SECRET, 422, "malformed", "cpu"),
        ({"backend": "users", "error_rate": 1.5}, SECRET, 422, "malformed", "error_rate"),
        ({"backend": "users", "memory": 0.5}, SECRET, 422, "malformed", "memory"),
        ({"backend": "users"}, SECRET, 422, "malformed", "(body)"),
        ({"cpu": 9.0}, SECRET, 422, "malformed", "backend"),
        ({"reports": [{"backend": "users", "cpu": 1}, {"cpu": 9}]}, SECRET, 422, "malformed", "reports[1].backend"),
        ({"reports": 1}, SECRET, 422, "malformed", "reports"),
        ({"reports": [], "more": 1}, SECRET, 422, "malformed", "more"),
        ([], SECRET, 422, "malformed", "(body)"),
        ({"reports": []}, SECRET, 422, "malformed", "reports"),
        ({"reports": [{"backend": "users", "cpu": 1}] * 101}, SECRET, 422, "malformed", "reports"),
        ({"backend": "users", "cpu": 9.0, "at": time.time() - 60}, SECRET, 422, "stale", "at"),
        ({"backend": "users", "cpu": 9.0, "at": time.time() + 86_400}, SECRET, 422, "stale", "at"),
    ],
)  # fmt: skip
async def test_what_is_refused_is_counted_and_changes_nothing(node, body, secret, status, reason, field):
    answer = await load(node, body, secret)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if field is not None:
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    refused = await counted(node, "tidegate_load_reports_refused_total")
    assert refused.pop(f'tidegate_load_reports_refused_total{{reason="{reason}"}}') == 1.0
    assert set(refused.values()) == {0.0}
    assert (await counted(node, "tidegate_load_reports_taken_total")) == {"tidegate_load_reports_taken_total": 0.0}
    for text in (answer.text, str(answer.headers)):
        assert secret is None or secret not in text


async def test_one_report_and_a_batch_are_taken_and_so_is_the_credential_before_the_last(node):
    assert (await load(node, {"backend": "users", "cpu": 0.5})).json() == {"taken": 1}
    batch = {"reports": [{"backend": "users", "cpu": 0.5, "at": time.time()}, {"backend": "users", "in_flight": 3}]}
    answer = await load(node, batch, OLD_SECRET)
    assert (answer.status_code, answer.json()) == (202, {"taken": 2})


async def test_too_large_a_body_is_cut_off(node):
    answer = await load(node, b" " * 70_000)
    assert answer.status_code == 413


async def served(node, body, token=GATEWAY_TOKEN):
    return await node.post("/v1/report", json=body, headers={} if token is None else {"x-tidegate-token": token})


async def test_gateways_report_what_they_forwarded(node):
    done = {"status": 200, "latency_ms": 12.5}
    items = [
        {**done, "backend": "users"},
        {**done, "endpoint": "get-user"},
        {**done, "method": "GET", "path": "/users/7"},
        {**done, "path": "/health"},
        {**done, "path": "/nowhere"},
    ]
    answer = await served(node, {"reports": items})
    assert (answer.status_code, answer.json()) == (202, {"taken": 5})
    taken = await counted(node, "tidegate_load_reports_taken_total")
    assert taken["tidegate_load_reports_taken_total"] == 3.0, "what goes to no backend is nobody's load"


@pytest.mark.parametrize(
    ("body", "token", "status", "field"),
    [
        ({"status": 200, "latency_ms": 1, "backend": "users"}, None, 401, None),
        ({"status": 200, "latency_ms": 1, "backend": "users"}, SECRET, 401, None),
        ({"status": 200, "latency_ms": 1, "backend": "nothing"}, GATEWAY_TOKEN, 422, "backend"),
        ({"status": 200, "latency_ms": 1, "endpoint": "nothing"}, GATEWAY_TOKEN, 422, "endpoint"),
        ({"status": 200, "latency_ms": 1}, GATEWAY_TOKEN, 422, "(body)"),
        ({"reports": [{"status": 200, "latency_ms": 1}]}, GATEWAY_TOKEN, 422, "reports[0]"),
        ({"status": 99, "latency_ms": 1, "backend": "users"}, GATEWAY_TOKEN, 422, "status"),
        ({"status": 200, "latency_ms": -1, "backend": "users"}, GATEWAY_TOKEN, 422, "latency_ms"),
        ({"reports": [{"status": 200, "latency_ms": 1, "backend": "users"}] * 1_001}, GATEWAY_TOKEN, 422, "reports"),
    ],
)  # fmt: skip
async def test_a_gateways_bad_report_is_refused(node, body, token, status, field):
    answer = await served(node, body, token)
    assert answer.status_code == status
    assert field is None or [error["field"] for error in answer.json()["errors"]] == [field]
    taken = await counted(node, "tidegate_load_reports_taken_total")
    assert taken["tidegate_load_reports_taken_total"] == 0.0


async def test_a_backend_may_be_called_reports(node):
    answer = await load(node, {"backend": "reports", "cpu": 0.5})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (403, "backend")
