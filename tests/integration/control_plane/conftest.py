"""A control plane over a real Postgres: a migrated template once a session, a database of its own for each test."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from asgi_lifespan import LifespanManager
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from control_plane.app import create_app
from control_plane.migration import migrate
from control_plane.publishing.repository import NOTHING
from control_plane.routes.models import RULE_IDS
from control_plane.settings import Settings
from control_plane.tables import METADATA
from testing.control_plane import RunningControlPlane, running, until_ready
from tidegate.stack.postgres import PostgresServer

DATABASE = "control_plane"
WITH_ONE_ROW = {"config_head", "schema_support"}
ADMIN_TOKEN = "an-admin-token-for-tests"
HEARTBEAT_S = 0.3
JOBS = (
    "drift-check",
    "ended-blocks",
    "expiry",
    "node-liveness",
    "quota-moves",
    "quota-rebalancing",
    "retention",
    "roll-outs",
    "usage-alerts",
    "usage-retention",
    "usage-roll-up",
    "usage-webhooks",
)
"""Every job of a leader (``test_jobs`` compares). A new leader would run them all at once, beside the test."""
_JOBS_RAN = "INSERT INTO jobs (job, outcome, finished_at, next_run_at, runs, failures) VALUES " + ", ".join(
    f"('{job}', 'done', now(), now() + interval '1 day', 1, 0)" for job in JOBS
)


@pytest.fixture(scope="session")
def migrated_database(postgres_server: PostgresServer) -> str:
    postgres_server.execute(f'CREATE DATABASE "{DATABASE}"')
    migrate(postgres_server.url(DATABASE))
    return DATABASE


@pytest.fixture
async def database_name(postgres_server: PostgresServer, migrated_database: str) -> str:
    """A migrated database as it is before anything was written (emptied: quicker than a new one).

    Row by row: TRUNCATE makes a new file for each of forty tables, which takes twenty times as long.
    """
    # as a replica: the audit log is append-only, for everybody but a superuser who says so
    statements = ["SET session_replication_role = replica"]
    statements += [f"DELETE FROM {table}" for table in METADATA.tables if table not in WITH_ONE_ROW]
    statements.append(f"ALTER SEQUENCE {RULE_IDS.name} RESTART")
    statements.append(
        f"UPDATE config_head SET revision = 0, digest = '{NOTHING}', "
        "rollout = NULL, stable_revision = NULL, stable_digest = NULL, deltas_from = 0"
    )
    statements.append(_JOBS_RAN)
    connection = await asyncpg.connect(postgres_server.url(migrated_database, scheme="postgresql"))
    try:
        await connection.execute("; ".join(statements))
    finally:
        await connection.close()
    return migrated_database


@pytest.fixture
def signing_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def make_settings(
    postgres_server: PostgresServer, database_name: str, signing_key: Ed25519PrivateKey, tmp_path: Path
) -> Callable[..., Settings]:
    key_file = tmp_path / "signing-key"
    key_file.write_text(signing_key.private_bytes_raw().hex() + "\n")

    def make(**changes: Any) -> Settings:
        values = {
            "database_url": SecretStr(postgres_server.url(database_name)),
            "signing_key_file": key_file,
            "admin_token": SecretStr(ADMIN_TOKEN),
            "heartbeat_s": HEARTBEAT_S,
            "shutdown_grace_s": 3,
            "port": 0,
            "max_failed_authentications": 1_000,
        }
        return Settings(**(values | changes))

    return make


@asynccontextmanager
async def client_of(settings: Settings, token: str | None = ADMIN_TOKEN) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls the application in this process, with its life cycle."""
    async with LifespanManager(create_app(settings), startup_timeout=20, shutdown_timeout=20) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://control-plane") as client:
            await until_ready(client)
            if token is not None:
                client.headers["Authorization"] = f"Bearer {token}"
            yield client


@pytest.fixture
async def api(make_settings: Callable[..., Settings]) -> AsyncIterator[httpx.AsyncClient]:
    """An admin's client."""
    async with client_of(make_settings()) as client:
        yield client


@pytest.fixture
async def served(make_settings: Callable[..., Settings]) -> AsyncIterator[RunningControlPlane]:
    """A control plane behind a real socket, with the region ``us-east`` and its credential."""
    async with running(make_settings(), ADMIN_TOKEN) as control_plane:
        await control_plane.add_region("us-east")
        yield control_plane
