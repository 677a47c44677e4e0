"""A node as operators start it: a process, settings from the environment, HTTPS, and a stop that loses nothing."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys

import httpx
import pytest

from testing.certificates import certificate
from testing.node import NOWHERE, PATIENT_MS, PUBLIC_KEY, REGION_CREDENTIAL, key_of, rule, write_snapshot
from tidegate.contract.config import Client, Plan
from tidegate.stack.child import Child, wait_until_done, wait_until_ready
from tidegate.stack.ports import LOOPBACK, free_ports
from tidegate.stack.progress import StackError

LIMIT = 1_000_000
CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", LIMIT, algorithm="fixed_window"),)),
    Client(client="acme", plan="p"),
    key_of("acme", "tg_acme"),
]


@pytest.fixture
async def snapshot(tmp_path):
    await write_snapshot(tmp_path / "snapshot", CONFIG)
    return tmp_path / "snapshot"


@pytest.fixture
def start_node(tmp_path, snapshot, valkey_url):
    started = []

    def start(**settings) -> tuple[Child, int]:
        port = free_ports(1)[0]
        env = {
            "TIDEGATE_NODE": "n1", "TIDEGATE_REGION": "us-east", "TIDEGATE_PORT": str(port),
            "TIDEGATE_TRUST": "network", "TIDEGATE_REDIS_URL": valkey_url, "TIDEGATE_CONTROL_PLANE_URL": NOWHERE,
            "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY, "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL,
            "TIDEGATE_SNAPSHOT_FILE": str(snapshot), "TIDEGATE_DRAIN_S": "0",
            "TIDEGATE_REDIS_DEADLINE_MS": str(PATIENT_MS), **settings,
        }  # fmt: skip
        node = Child("node", [sys.executable, "-m", "tidegate", "data-plane"], log_path=tmp_path / "log", env=env)
        node.start()
        started.append(node)
        scheme = "https" if "TIDEGATE_TLS_CERT_FILE" in settings else "http"
        readyz = f"{scheme}://127.0.0.1:{port}/readyz"
        if "TIDEGATE_HEALTH_PORT" in settings:
            readyz = f"http://127.0.0.1:{settings['TIDEGATE_HEALTH_PORT']}/readyz"

        def is_ready() -> bool:
            try:
                return httpx.get(readyz, verify=False, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until_ready(node, is_ready, timeout_s=30)
        return node, port

    yield start
    for node in started:
        node.stop()


def test_a_node_serves_https_and_nothing_else_there(tmp_path, start_node):
    cert, key = certificate(tmp_path)
    _, port = start_node(TIDEGATE_TLS_CERT_FILE=str(cert), TIDEGATE_TLS_KEY_FILE=str(key))
    trusted = ssl.create_default_context(cafile=str(cert))
    answer = httpx.post(
        f"https://127.0.0.1:{port}/v1/check", json={"api_key": "tg_acme"}, verify=trusted, trust_env=False
    )
    assert answer.json()["remaining"] == LIMIT - 1
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path, start_node):
    cert, key = certificate(tmp_path)
    rls_port = free_ports(1)[0]
    node, port = start_node(
        TIDEGATE_TLS_CERT_FILE=str(cert), TIDEGATE_TLS_KEY_FILE=str(key), TIDEGATE_RLS_PORT=str(rls_port)
    )

    def shown() -> set[str]:
        return {ssl.get_server_certificate((LOOPBACK, each)) for each in (port, rls_port)}

    def logs(event: str, times: int) -> bool:
        return (tmp_path / "log").read_text().count(event) == times

    before = cert.read_text()
    assert shown() == {before}
    client = httpx.Client(
        base_url=f"https://{LOOPBACK}:{port}", verify=ssl.create_default_context(cafile=cert), trust_env=False,
        limits=httpx.Limits(keepalive_expiry=60),
    )  # fmt: skip
    with client:
        assert client.get("/healthz").status_code == 200
        key.write_text("of no certificate")
        wait_until_ready(node, lambda: logs("certificate_not_renewed", 2), timeout_s=30)
        assert shown() == {before}
        certificate(tmp_path)
        wait_until_ready(node, lambda: logs("certificate_renewed", 2), timeout_s=30)
        assert shown() == {cert.read_text()} != {before}
        # it would not believe the new one: its connection went on
        assert client.get("/healthz").status_code == 200


def test_probes_and_scrapers_need_no_client_certificate_on_a_port_of_their_own(tmp_path, start_node):
    cert, key = certificate(tmp_path)
    health_port = free_ports(1)[0]
    node, port = start_node(
        TIDEGATE_TLS_CERT_FILE=str(cert), TIDEGATE_TLS_KEY_FILE=str(key), TIDEGATE_TLS_CLIENT_CA_FILE=str(cert),
        TIDEGATE_HEALTH_PORT=str(health_port), TIDEGATE_DRAIN_S="2",
    )  # fmt: skip
    strangers = ssl.create_default_context(cafile=str(cert))
    known = ssl.create_default_context(cafile=str(cert))
    known.load_cert_chain(cert, key)
    url = f"https://127.0.0.1:{port}"
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/readyz", verify=strangers, trust_env=False)
    check = {"api_key": "tg_acme"}
    assert httpx.post(f"{url}/v1/check", json=check, verify=known, trust_env=False).status_code == 200
    with httpx.Client(base_url=f"http://127.0.0.1:{health_port}", trust_env=False) as health:
        assert health.get("/healthz").json() == {"status": "ok"}
        assert 'rate_limit_checks_total{result="allowed"} 1.0' in health.get("/metrics").text
        # nothing that decides, and nothing that says more
        assert health.post("/v1/check", json=check).status_code == 404
        assert health.get("/v1/status").status_code == 404

        os.kill(node.pid, signal.SIGTERM)
        wait_until_ready(node, lambda: health.get("/readyz").status_code == 503, timeout_s=10)
        assert health.get("/readyz").json()["draining"] is True
        assert httpx.post(f"{url}/v1/check", json=check, verify=known, trust_env=False).status_code == 200
    node.stop()
    assert node.exit_code() in {0, -signal.SIGTERM}


@pytest.mark.parametrize("kind", ["HEALTH", "RLS"])
def test_a_port_that_is_taken_is_told_and_ends_the_node(kind, tmp_path, snapshot, valkey_url):
    port = free_ports(1)[0]
    env = {
        "TIDEGATE_REGION": "us-east", "TIDEGATE_PORT": str(port),
        "TIDEGATE_REDIS_URL": valkey_url, "TIDEGATE_CONTROL_PLANE_URL": NOWHERE,
        "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY, "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL,
        "TIDEGATE_SNAPSHOT_FILE": str(snapshot),
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env[f"TIDEGATE_{kind}_PORT"] = str(taken.getsockname()[1])
        node = Child("node", [sys.executable, "-m", "tidegate", "data-plane"], log_path=tmp_path / "taken", env=env)
        node.start()
        with pytest.raises(StackError):
            wait_until_done(node, timeout_s=30)
    said = (tmp_path / "taken").read_text()
    assert f"{kind.lower()}_port_not_taken" in said
    assert "Traceback" not in said


async def test_a_stop_loses_no_decision_that_was_counted(start_node):
    node, port = start_node()
    answered = 0
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, trust_env=False) as client:

        async def ask_until_it_stops():
            nonlocal answered
            with contextlib.suppress(httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
                while True:
                    answer = await client.post("/v1/check", json={"api_key": "tg_acme"})
                    assert (answer.status_code, answer.json()["degraded"]) == (200, False)
                    answered += 1

        askers = [asyncio.create_task(ask_until_it_stops()) for _ in range(10)]
        async with asyncio.timeout(20):
            while answered < 200:
                await asyncio.sleep(0.01)
            stopping = asyncio.get_running_loop().run_in_executor(None, node.stop)
            await asyncio.gather(*askers)
            await stopping
    assert node.exit_code() in {0, -signal.SIGTERM}  # uvicorn hands the signal on once it has finished

    _, port = start_node()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        peek = await client.post("/v1/check", json={"api_key": "tg_acme", "cost": 0})
    assert LIMIT - peek.json()["remaining"] == answered


def test_settings_that_cannot_work_are_named_and_their_values_are_not(tmp_path):
    wrong = {"TIDEGATE_REGION": "EU!", "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": "hush"}
    node = Child("node", [sys.executable, "-m", "tidegate", "data-plane"], log_path=tmp_path / "bad", env=wrong)
    node.start()
    with pytest.raises(StackError):
        wait_until_done(node, timeout_s=30)
    said = (tmp_path / "bad").read_text()
    lines = {line.partition(":")[0] for line in said.splitlines()}
    assert {"TIDEGATE_REGION", "TIDEGATE_REDIS_URL", "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY"} <= lines
    assert "hush" not in said
    assert "Traceback" not in said
