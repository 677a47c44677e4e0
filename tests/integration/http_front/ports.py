"""Every port of every process, as operators start them: a node, its health port, a control plane."""

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from testing.node import NOWHERE, PUBLIC_KEY, REGION_CREDENTIAL
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports

ADMIN_TOKEN = "an-admin-token-for-tests"
PATIENCE_S = 15.0
STORE_DEADLINE_MS = "5000"
"""Attacks may hold up a node beside other work: none of this is about a node that decides without its store."""


class Port(NamedTuple):
    """``path`` is answered 200 with GET by the application of that port."""

    name: str
    number: int
    child: Child
    log: Path
    path: bytes = b"/healthz"

    def connect(self, timeout_s: float = PATIENCE_S) -> socket.socket:
        """A fresh connection."""
        return socket.create_connection(("127.0.0.1", self.number), timeout=timeout_s)

    def answers(self) -> bool:
        """Whether a fresh client is answered."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.number}/healthz", trust_env=False, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def is_ready(self) -> bool:
        """Whether it has what it needs: a configuration, a database."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.number}/readyz", trust_env=False, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def rss_mib(self) -> float:
        """The process's resident memory."""
        return float(psutil.Process(self.child.pid).memory_info().rss / 2**20)

    def logged(self) -> str:
        """What the process wrote so far."""
        return self.log.read_text()


@contextlib.contextmanager
def every_port(
    directory: Path, snapshot: Path, store_url: str, database_url: str, *, descriptors: int | None = None
) -> Iterator[dict[str, Port]]:
    """The ports by name, with processes of their own; each process has at most that many ``descriptors``."""
    node, health, control_plane = free_ports(3)
    key = directory / "signing-key"
    key.write_text(bytes(range(32)).hex() + "\n")
    begun = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
    begun += [sys.executable, "-m", "tidegate"]
    node_child = Child(
        "node", [*begun, "data-plane"], log_path=directory / "node.log",
        env={
            "TIDEGATE_NODE": "n1", "TIDEGATE_REGION": "us-east", "TIDEGATE_PORT": str(node),
            "TIDEGATE_HEALTH_PORT": str(health), "TIDEGATE_REDIS_URL": store_url,
            "TIDEGATE_CONTROL_PLANE_URL": NOWHERE, "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY,
            "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL, "TIDEGATE_SNAPSHOT_FILE": str(snapshot),
            "TIDEGATE_DRAIN_S": "0", "TIDEGATE_REDIS_DEADLINE_MS": STORE_DEADLINE_MS,
        },
    )  # fmt: skip
    control_plane_child = Child(
        "control plane", [*begun, "control-plane"], log_path=directory / "control-plane.log",
        env={
            "TIDEGATE_PORT": str(control_plane), "TIDEGATE_DATABASE_URL": database_url,
            "TIDEGATE_SIGNING_KEY_FILE": str(key), "TIDEGATE_ADMIN_TOKEN": ADMIN_TOKEN,
        },
    )  # fmt: skip
    ports = {
        "node": Port("node", node, node_child, directory / "node.log"),
        "health": Port("health", health, node_child, directory / "node.log"),
        "control plane": Port("control plane", control_plane, control_plane_child, directory / "control-plane.log"),
    }
    try:
        for child in (node_child, control_plane_child):
            child.start()
        for port in ports.values():
            wait_until_ready(port.child, port.is_ready, timeout_s=30)
        yield ports
    finally:
        for child in (node_child, control_plane_child):
            child.stop()
