"""TLS with a client certificate, ACL users, and unix sockets, on real servers."""

import asyncio
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import redis
from testing.certificates import certificate
from testing.stores import redis_binary
from tests.integration.redis.conftest import OpenStore
from tests.integration.redis.load import ask, rule
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.store import StoreServer


class TlsServer(NamedTuple):
    """A Redis that speaks only TLS and wants client certificates, and the folder of certificates."""

    child: Child
    port: int
    folder: Path

    def issue(self) -> None:
        """Make a new authority, and what it signs."""
        authority = certificate(self.folder, "ca")
        certificate(self.folder, "server", authority)
        certificate(self.folder, "client", authority)

    @property
    def client_files(self) -> dict[str, Path]:
        return {
            "tls_ca_file": self.folder / "ca.crt",
            "tls_cert_file": self.folder / "client.crt",
            "tls_key_file": self.folder / "client.key",
        }


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    binary = redis_binary()
    if b"libssl" not in subprocess.run(["ldd", binary], capture_output=True, check=True).stdout:
        pytest.skip("needs a redis-server built with TLS")
    folder = tmp_path_factory.mktemp("tls")
    port = free_ports(1)[0]
    (folder / "redis.conf").write_text(
        f"bind 127.0.0.1\nport 0\ntls-port {port}\n"
        f"tls-cert-file {folder}/server.crt\ntls-key-file {folder}/server.key\n"
        f'tls-ca-cert-file {folder}/ca.crt\nsave ""\ndir {folder}\n'
    )
    child = Child("Redis with TLS", [binary, folder / "redis.conf"], log_path=folder / "log")
    server = TlsServer(child, port, folder)
    server.issue()
    child.start()
    try:
        wait_until_ready(child, lambda: "Ready to accept" in (folder / "log").read_text(), timeout_s=10)
        yield server
    finally:
        child.stop()


async def test_decides_over_tls_with_a_client_certificate(tls_server: TlsServer, open_store: OpenStore) -> None:
    store = await open_store(f"rediss://localhost:{tls_server.port}/0", **tls_server.client_files)
    assert [(await ask(store, (b"{c}",), (rule(2),))).verdict for _ in range(3)] == ["allowed", "allowed", "denied"]
    assert await store.execute("EXISTS", b"{c}") == 1


async def test_a_server_that_the_ca_does_not_vouch_for_is_not_used(
    tls_server: TlsServer, open_store: OpenStore
) -> None:
    files = {name: path for name, path in tls_server.client_files.items() if name != "tls_ca_file"}
    store = await open_store(f"rediss://localhost:{tls_server.port}/0", **files)
    assert (await ask(store, (b"{c}",), (rule(2),))).verdict == "circuit_open"
    assert not store.status().usable


async def test_renewed_files_are_used_by_the_next_connection(tls_server: TlsServer, open_store: OpenStore) -> None:
    store = await open_store(f"rediss://localhost:{tls_server.port}/0", **tls_server.client_files)
    assert (await ask(store, (b"{renewed}",), (rule(2),))).verdict == "allowed"
    tls_server.child.stop()
    tls_server.issue()
    tls_server.child.start()
    async with asyncio.timeout(10):
        while (await ask(store, (b"{renewed}",), (rule(2),))).verdict != "allowed":
            await asyncio.sleep(0.02)
    assert await store.execute("EXISTS", b"{renewed}") == 1


@pytest.fixture
def acl_url(store_url: str) -> Iterator[str]:
    """A server with the least that a node's user needs."""
    with redis.Redis.from_url(store_url) as admin:
        admin.execute_command(
            "ACL", "SETUSER", "node", "on", ">node-password", "~*", "+@scripting", "-@all", "+evalsha", "+eval",
            "+script|load", "+get", "+set", "+sadd", "+time",
        )  # fmt: skip
        yield f"redis://node:node-password@{store_url.rpartition('@')[2]}"
        admin.execute_command("ACL", "DELUSER", "node")


async def test_a_user_with_the_least_rights_decides(acl_url: str, open_store: OpenStore, caplog) -> None:
    store = await open_store(acl_url)
    assert (await ask(store, (b"{c}",), (rule(2),))).verdict == "allowed"
    assert "may not use INFO" in caplog.text


async def test_a_user_without_the_right_to_write_is_told_so(
    acl_url: str, store_url: str, open_store: OpenStore
) -> None:
    store = await open_store(acl_url)
    with redis.Redis.from_url(store_url) as admin:
        admin.execute_command("ACL", "SETUSER", "node", "resetkeys")
    assert (await ask(store, (b"{c}",), (rule(2),))).verdict == "no_permission"


async def test_a_wrong_password_is_named_in_the_status(acl_url: str, open_store: OpenStore) -> None:
    store = await open_store(acl_url.replace("node-password", "wrong"))
    assert store.status().shards[0].problem == "no_permission"
    assert (await ask(store, (b"{c}",), (rule(2),))).verdict == "circuit_open"


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path for a unix socket: they may have 107 characters at most, and a test's own directory can be deeper."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory) / "s"


async def test_decides_over_a_unix_socket(
    start_store: Callable[..., StoreServer], open_store: OpenStore, socket_path: Path
) -> None:
    server = start_store(settings={"unixsocket": str(socket_path)})
    store = await open_store(server.url.replace("redis://", "unix://").partition("@")[0] + f"@{socket_path}")
    assert (await ask(store, (b"{c}",), (rule(2),))).verdict == "allowed"
    assert await store.execute("PING")
