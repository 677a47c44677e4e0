"""A Postgres that allows TLS only: both spellings of the URL reach it, for the migration and for the service."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from control_plane.settings import Settings
from testing.certificates import certificate
from testing.postgres_tls import PASSWORD, USER, TlsPostgres, postgres_binaries, tls_postgres
from tests.integration.control_plane.conftest import client_of
from tidegate.cli import app

BINARIES = postgres_binaries()
pytestmark = pytest.mark.skipif(BINARIES is None, reason="needs a Postgres with TLS: apt-get install postgresql")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsPostgres]:
    assert BINARIES is not None
    with tls_postgres(BINARIES, tmp_path_factory.mktemp("postgres-tls")) as server:
        yield server


def url(server: TlsPostgres, query: str, scheme: str = "postgresql+asyncpg", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{USER}:{quote(PASSWORD, safe='')}@{host}:{server.port}/postgres?{query}"


@pytest.mark.parametrize(
    ("scheme", "query"),
    [
        ("postgresql+asyncpg", "ssl=require"),
        ("postgresql+asyncpg", "sslmode=require"),
        ("postgresql", "sslmode=verify-full&sslrootcert=CA"),
        ("postgres", "ssl=verify-ca&sslrootcert=CA"),
    ],
)
async def test_migration_and_service_reach_a_database_that_allows_tls_only(
    server: TlsPostgres, make_settings: Callable[..., Settings], scheme: str, query: str
) -> None:
    at = url(server, query.replace("CA", str(server.ca_file)), scheme)
    migrated = await asyncio.to_thread(CliRunner().invoke, app, ["migrate"], env={"TIDEGATE_DATABASE_URL": at})
    assert (migrated.exit_code, migrated.output) == (0, "")
    # ready: the pool, the connection that listens and the leader's lock are there
    async with client_of(make_settings(database_url=SecretStr(at))) as api:
        assert (await api.put("/v1/regions/us-east", json={})).status_code in {200, 201}


@pytest.mark.parametrize(
    ("host", "query", "said"),
    [
        ("127.0.0.1", "sslmode=disable", "no encryption"),
        ("127.0.0.1", "sslmode=require&sslrootcert=OTHER", "certificate verify failed"),
        ("localhost", "sslmode=verify-full&sslrootcert=CA", "certificate verify failed"),
    ],
)
def test_what_is_not_believed_is_not_spoken_to(
    server: TlsPostgres, tmp_path: Path, host: str, query: str, said: str
) -> None:
    other, _ = certificate(tmp_path)
    query = query.replace("OTHER", str(other)).replace("CA", str(server.ca_file))
    refused = CliRunner().invoke(app, ["migrate"], env={"TIDEGATE_DATABASE_URL": url(server, query, host=host)})
    assert refused.exit_code == 1
    assert said in refused.output
    assert PASSWORD not in refused.output
