"""One installation whose processes are of two versions, each out of its own wheel in an environment of its own."""

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Any

import httpx

from testing.proxy import Proxy
from tests.release.environments import Environment
from tidegate.contract.credentials import RANDOM_BYTES, make_credential
from tidegate.stack.child import Child, wait_until_done, wait_until_ready
from tidegate.stack.ports import LOOPBACK, free_ports
from tidegate.stack.postgres import PostgresServer
from tidegate.stack.store import StoreServer

START_S = 90.0
DATABASE = "tidegate"


class Installation:
    """Postgres, a store in each region, and addresses that lead to processes of either version.

    ``address`` is where nodes find the control plane, ``peers[region]`` where other regions find a region's agent.
    """

    def __init__(self, root: Path, regions: tuple[str, ...]) -> None:
        self.root = root
        self.regions = regions
        self.token = make_credential("admin", secrets.token_bytes(RANDOM_BYTES))
        self.credentials = {name: make_credential("region", secrets.token_bytes(RANDOM_BYTES)) for name in regions}
        self.public_key = ""
        self.address = Proxy(0)
        self.peers = {name: Proxy(0) for name in regions}
        port, *store_ports = free_ports(1 + len(regions))
        word = secrets.token_urlsafe(16)
        self._postgres = PostgresServer(
            root / "postgres", port=port, password=word, log_path=root / "postgres.log", durable=False
        )
        self._stores = {
            name: StoreServer(root / f"store-{name}", port=port, password=word, log_path=root / f"store-{name}.log")
            for name, port in zip(regions, store_ports, strict=True)
        }
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Installation":
        (self.root / "admin-token").write_text(self.token)
        for store in self._stores.values():
            store.prepare()
            self.started(store.child)
            wait_until_ready(store.child, store.is_ready, timeout_s=START_S)
        self._postgres.prepare()
        self.started(self._postgres.child)
        wait_until_ready(self._postgres.child, self._postgres.is_ready, timeout_s=START_S)
        self._postgres.ensure_database(DATABASE)
        for proxy in (self.address, *self.peers.values()):
            await self._stack.enter_async_context(proxy.running())
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.aclose()

    def started(self, child: Child) -> Child:
        """Start a process that ends with the installation, unless it is stopped before."""
        child.start()
        self._stack.push_async_callback(asyncio.to_thread, child.stop)
        return child

    def make_signing_key(self, version: Environment) -> None:
        said = version.run(version.program("tidegate"), "signing-key", self.root / "signing-key")
        self.public_key = said.split()[-1]

    def migrate(self, version: Environment) -> None:
        child = self._child(version, "migrate", "migrate", {"TIDEGATE_DATABASE_URL": self._postgres.url(DATABASE)})
        child.start()
        wait_until_done(child, timeout_s=START_S)

    async def control_plane(self, version: Environment, name: str) -> tuple[Child, str]:
        """One replica, ready; the other part is its address."""
        (port,) = free_ports(1)
        settings = {
            "TIDEGATE_HOST": LOOPBACK, "TIDEGATE_PORT": str(port),
            "TIDEGATE_DATABASE_URL": self._postgres.url(DATABASE),
            "TIDEGATE_SIGNING_KEY_FILE": str(self.root / "signing-key"),
            "TIDEGATE_ADMIN_TOKEN_FILE": str(self.root / "admin-token"),
        }  # fmt: skip
        child = self.started(self._child(version, name, "control-plane", settings))
        await _ready(child, port)
        return child, f"http://{LOOPBACK}:{port}"

    async def of_region(self, version: Environment, region: str, name: str, command: str) -> tuple[Child, int]:
        """A node (``data-plane``) or an agent (``region-agent``), ready; the other part is its port."""
        (port,) = free_ports(1)
        settings = {
            "TIDEGATE_NODE": name, "TIDEGATE_REGION": region, "TIDEGATE_HOST": LOOPBACK, "TIDEGATE_PORT": str(port),
            "TIDEGATE_REDIS_URL": self._stores[region].url, "TIDEGATE_CONTROL_PLANE_URL": self.address.url,
            "TIDEGATE_REGION_CREDENTIAL": self.credentials[region],
            "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": self.public_key, "TIDEGATE_DRAIN_S": "0", "TIDEGATE_TRUST": "network",
            "TIDEGATE_SNAPSHOT_FILE": str(self.root / f"{name}.snapshot"), "TIDEGATE_REDIS_DEADLINE_MS": "1000",
        }  # fmt: skip
        child = self.started(self._child(version, name, command, settings))
        await _ready(child, port)
        return child, port

    def _child(self, version: Environment, name: str, command: str, settings: dict[str, str]) -> Child:
        return Child(
            name, [version.program("tidegate"), command],
            log_path=self.root / f"{name}.log", directory=self.root, env={"PYTHONPATH": "", **settings},
        )  # fmt: skip


async def _ready(child: Child, port: int) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client, asyncio.timeout(START_S):
        while True:
            assert child.exit_code() is None, child.log_tail()
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"http://{LOOPBACK}:{port}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
