"""A region's nodes restarted one after the other under load behind HAProxy: nothing fails, nothing is miscounted."""

import asyncio
import shutil
import signal
import sys
from pathlib import Path

import httpx
import pytest

from contract.config import Client, Plan
from tests.operate.load import Load
from tests.servers.node import NOWHERE, PUBLIC_KEY, REGION_CREDENTIAL, key_of, rule, write_snapshot
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports

NODES = 3
BIG, SMALL = 1_000_000, 500
CONFIG = [
    Plan(plan="big", limits=(rule(1, "hourly", BIG, algorithm="fixed_window"),)),
    Plan(plan="small", limits=(rule(2, "few", SMALL, algorithm="fixed_window"),)),
    Client(client="acme", plan="big"),
    Client(client="globex", plan="small"),
    key_of("acme", "tg_acme"),
    key_of("globex", "tg_globex"),
]
HAPROXY = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 5s
    # nothing is asked twice: a failure would be seen
    retries 0
    # a node that is slow to answer a check on a busy machine is not gone
    timeout check 2s
    default-server check inter 300ms fall 2 rise 1
frontend nodes
    bind 127.0.0.1:{port}
    default_backend region
frontend statistics
    bind 127.0.0.1:{stats_port}
    stats enable
    stats uri /
backend region
    balance roundrobin
    http-reuse always
    option httpchk GET /readyz
    http-check expect status 200
{servers}
"""


class Region:
    """Nodes behind a load balancer."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if program is None:
            pytest.skip("haproxy is not installed")
        self.port, self._stats_port, *self._node_ports = free_ports(2 + NODES)
        self._directory = directory
        self._redis_url = redis_url
        self.nodes: list[Child] = []
        servers = "\n".join(f"    server n{at + 1} 127.0.0.1:{port}" for at, port in enumerate(self._node_ports))
        config = directory / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=self.port, stats_port=self._stats_port, servers=servers))
        self.balancer = Child("HAProxy", [program, "-db", "-f", config], log_path=directory / "haproxy.log")

    def start(self) -> None:
        """All nodes, then the balancer, until it sends requests to all."""
        self.nodes = [self.start_node(at) for at in range(NODES)]
        self.balancer.start()
        wait_until_ready(self.balancer, lambda: self.serving() == NODES, timeout_s=60)

    def start_node(self, at: int) -> Child:
        """Node ``at``, on its port."""
        name = f"n{at + 1}"
        env = {
            "TIDEGATE_NODE": name, "TIDEGATE_REGION": "us-east", "TIDEGATE_PORT": str(self._node_ports[at]),
            "TIDEGATE_TRUST": "network", "TIDEGATE_REDIS_URL": self._redis_url, "TIDEGATE_REDIS_DEADLINE_MS": "2000",
            "TIDEGATE_CONTROL_PLANE_URL": NOWHERE, "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY,
            "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL, "TIDEGATE_DRAIN_S": "2",
            "TIDEGATE_SNAPSHOT_FILE": str(self._directory / f"snapshot-{name}"),
        }  # fmt: skip
        log_path = self._directory / f"{name}.log"
        node = Child(f"node {name}", [sys.executable, "-m", "tidegate", "data-plane"], log_path=log_path, env=env)
        node.start()
        return node

    def serving(self) -> int:
        """To how many nodes the balancer sends requests."""
        try:
            lines = httpx.get(f"http://127.0.0.1:{self._stats_port}/;csv", trust_env=False).text.splitlines()
        except httpx.HTTPError:
            return 0
        rows = [dict(zip(lines[0].lstrip("# ").split(","), line.split(","), strict=False)) for line in lines[1:]]
        return sum(
            row.get("pxname") == "region" and row["svname"] != "BACKEND" and row["status"] == "UP" for row in rows
        )

    def restart_each(self) -> None:
        """One node after the other: stop it as Kubernetes does, start it again, wait until it serves."""
        for at, node in enumerate(self.nodes):
            node.stop(timeout_s=20)
            assert node.exit_code() in {0, -signal.SIGTERM}
            again = self.nodes[at] = self.start_node(at)
            wait_until_ready(again, lambda: self.serving() == NODES, timeout_s=60)

    def stop(self) -> None:
        """Everything."""
        for child in (self.balancer, *self.nodes):
            child.stop(timeout_s=20)


@pytest.fixture
def region(tmp_path, valkey_url):
    for at in range(NODES):
        asyncio.run(write_snapshot(tmp_path / f"snapshot-n{at + 1}", CONFIG))
    region = Region(tmp_path, valkey_url)
    try:
        region.start()
        yield region
    finally:
        region.stop()


def test_a_rolling_restart_fails_no_request_and_miscounts_none(region, capsys):
    load = Load(region.port, {"big": {"api_key": "tg_acme"}, "small": {"api_key": "tg_globex"}})
    restarted = False

    async def under_load() -> None:
        nonlocal restarted
        running = asyncio.create_task(load.run(8, lambda: restarted, most=20_000, pause_s=0.01))
        try:
            async with asyncio.timeout(10):
                while load.answered < 100:
                    await asyncio.sleep(0.01)
            before = load.answered
            await asyncio.to_thread(region.restart_each)
            assert load.answered > before + 500  # there was load all the while
        finally:
            restarted = True
            await running

    asyncio.run(under_load())
    peek = httpx.post(
        f"http://127.0.0.1:{region.port}/v1/check", json={"api_key": "tg_acme", "cost": 0}, trust_env=False
    ).json()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{NODES} nodes restarted: {load.answered} decisions,"
            f" {len(load.failed)} failed, {load.degraded} degraded;"
            f" big: {load.allowed['big']} allowed, {BIG - peek['remaining']} counted;"
            f" small: {load.allowed['small']} of {SMALL} allowed, {load.denied['small']} denied\n"
        )
    assert load.failed == []
    assert load.degraded == 0
    assert (load.allowed["small"], load.denied["big"]) == (SMALL, 0)
    assert load.denied["small"] > 0
    assert BIG - peek["remaining"] == load.allowed["big"]
