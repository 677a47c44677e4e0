"""Postgres and control-plane processes of this run, with clients in them."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from control_plane.canary.placement import CanaryPlacement
from control_plane.clients.models import KeyRow
from control_plane.database import Database
from control_plane.migration import migrate
from control_plane.publishing.repository import Signer
from control_plane.publishing.writer import ConfigWriter
from tidegate.contract.config import ApiKey
from tidegate.contract.credentials import secret_sha256
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.local import TIDEGATE, is_ready
from tidegate.stack.ports import LOOPBACK, free_ports
from tidegate.stack.postgres import PostgresServer

DATABASE = "push"
START_TIMEOUT_S = 60.0


class ControlPlane(NamedTuple):
    """One replica."""

    child: Child
    url: str
    port: int


class Place(NamedTuple):
    """What runs."""

    postgres: PostgresServer
    database_url: str
    replicas: list[ControlPlane]
    admin_token: str
    signing_key: Ed25519PrivateKey

    def admin(self, replica: int = 0) -> httpx.Client:
        """An admin's client of one replica."""
        headers = {"Authorization": f"Bearer {self.admin_token}"}
        return httpx.Client(base_url=self.replicas[replica].url, headers=headers, trust_env=False, timeout=30.0)


@contextmanager
def running(root: Path, replicas: int) -> Iterator[Place]:
    """Start all of it, and stop it."""
    port, *ports = free_ports(1 + replicas)
    postgres = PostgresServer(
        root / "data", port=port, password=secrets.token_urlsafe(16), log_path=root / "postgres.log", durable=True
    )
    signing_key = Ed25519PrivateKey.generate()
    (root / "key").write_text(signing_key.private_bytes_raw().hex())
    token = secrets.token_urlsafe(24)
    children = [postgres.child]
    try:
        postgres.prepare()
        postgres.child.start()
        wait_until_ready(postgres.child, postgres.is_ready, timeout_s=START_TIMEOUT_S)
        postgres.ensure_database(DATABASE)
        migrate(postgres.url(DATABASE))
        found = []
        for number, replica_port in enumerate(ports):
            child = Child(
                f"control plane {number}",
                [*TIDEGATE, "control-plane"],
                log_path=root / f"control-plane-{number}.log",
                env={
                    "TIDEGATE_HOST": LOOPBACK,
                    "TIDEGATE_PORT": str(replica_port),
                    "TIDEGATE_DATABASE_URL": postgres.url(DATABASE),
                    "TIDEGATE_SIGNING_KEY_FILE": str(root / "key"),
                    "TIDEGATE_ADMIN_TOKEN": token,
                    "TIDEGATE_REPLICA": f"replica-{number}",
                },
            )
            children.append(child)
            child.start()
            found.append(ControlPlane(child, f"http://{LOOPBACK}:{replica_port}", replica_port))
        for replica in found:
            wait_until_ready(replica.child, partial(is_ready, replica.url), timeout_s=START_TIMEOUT_S)
        yield Place(postgres, postgres.url(DATABASE), found, token, signing_key)
    finally:
        for child in reversed(children):
            child.stop()


def client_name(number: int) -> str:
    """What a client is called; its key's secret is made of that."""
    return f"customer-{number:07d}"


def seed_keys(place: Place, count: int) -> None:
    """Give each client a key, all in one revision: a file has no keys, and their import is not what is measured."""
    asyncio.run(_seed_keys(place, count))


async def _seed_keys(place: Place, count: int) -> None:
    database = Database(place.database_url, connect_timeout_s=5.0, command_timeout_s=300.0, pool_size=2)
    try:
        canary = partial(CanaryPlacement, heartbeat_s=5.0)
        async with ConfigWriter(database, Signer(place.signing_key), canary).begin("bench", "many keys") as write:
            keys = []
            for number in range(count):
                name, key_id = client_name(number), f"key_{number:012x}"
                sha256 = secret_sha256(name)
                keys.append({"key_id": key_id, "client": name, "sha256": sha256})
                write.publish(ApiKey(sha256=sha256, key_id=key_id, client=name))
            for start in range(0, count, 5_000):
                await write.session.execute(sa.insert(KeyRow), keys[start : start + 5_000])
    finally:
        await database.close()
