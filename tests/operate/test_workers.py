"""Another ASGI server may have one worker of a node: more would be one node by name, with metrics of a random one."""

import asyncio
import re
import sys

import httpx

from testing.node import NOWHERE, PUBLIC_KEY, REGION_CREDENTIAL, key_of, rule, write_snapshot
from tidegate.contract.config import Client, Plan
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports

CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 1_000),)),
    Client(client="acme", plan="p"),
    key_of("acme", "tg_acme"),
]
CHECKS, SCRAPES = 20, 5


def test_further_workers_refuse_to_start_and_metrics_are_those_of_one(tmp_path, valkey_url):
    asyncio.run(write_snapshot(tmp_path / "snapshot", CONFIG))
    port = free_ports(1)[0]
    env = {
        "TIDEGATE_NODE": "n1", "TIDEGATE_REGION": "us-east", "TIDEGATE_TRUST": "network",
        "TIDEGATE_REDIS_URL": valkey_url, "TIDEGATE_CONTROL_PLANE_URL": NOWHERE,
        "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY, "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL,
        "TIDEGATE_SNAPSHOT_FILE": str(tmp_path / "snapshot"),
    }  # fmt: skip
    log_path = tmp_path / "log"
    server = Child(
        "uvicorn",
        [sys.executable, "-m", "uvicorn", "--factory", "data_plane.main:app_from_environment",
         "--port", str(port), "--workers", "2"],
        log_path=log_path, env=env,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    server.start()
    try:
        wait_until_ready(server, is_ready, timeout_s=60)
        wait_until_ready(server, lambda: "SeveralWorkersError" in log_path.read_text(), timeout_s=60)
        for _ in range(CHECKS):  # each on a connection of its own
            answer = httpx.post(f"{url}/v1/check", json={"api_key": "tg_acme"}, trust_env=False)
            assert answer.status_code == 200
        counted = set()
        for _ in range(SCRAPES):
            text = httpx.get(f"{url}/metrics", trust_env=False).text
            counted.add(re.search(r'^rate_limit_checks_total{result="allowed"} (\S+)$', text, re.MULTILINE).group(1))
        assert counted == {f"{CHECKS}.0"}
    finally:
        server.stop(timeout_s=20)
    assert "a node is one process" in log_path.read_text()
