"""Stores for tests: Valkey from its wheel, and the system's Redis where it is installed."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tidegate.stack.child import wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.store import StoreServer

START_TIMEOUT_S = 30.0
StartStore = Callable[..., StoreServer]


@contextmanager
def stores_started(directories: pytest.TempPathFactory) -> Iterator[StartStore]:
    """Start stores with ``start(binary=None, settings={...})``; all of them stop at the end of the block.

    ``binary=None`` is Valkey. ``server.url`` has the password; ``server.child`` can be killed, and started again.
    """
    started: list[StoreServer] = []

    def start(
        *,
        name: str = "Valkey",
        binary: Path | None = None,
        durable: bool = False,
        settings: dict[str, str] | None = None,
    ) -> StoreServer:
        root = directories.mktemp("store")
        server = StoreServer(
            root / "data",
            port=free_ports(1)[0],
            password=secrets.token_urlsafe(16),
            log_path=root / "server.log",
            name=name,
            binary=binary,
            durable=durable,
            settings=settings,
        )
        server.prepare()
        server.child.start()
        started.append(server)
        wait_until_ready(server.child, server.is_ready, timeout_s=START_TIMEOUT_S)
        return server

    try:
        yield start
    finally:
        for server in started:
            server.child.stop()


def redis_binary() -> Path:
    """The system's redis-server; skips the test with a clear word where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("needs redis-server (Debian package redis-server)")
    return Path(found)
