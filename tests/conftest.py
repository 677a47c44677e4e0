"""Real servers for tests: every one is our own child process on a free port, with its data under pytest's tmp path."""

import gc
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import redis

from testing.effort import load_hypothesis_profile
from testing.redis_debian import redis_binary
from testing.stack import Stack, stack_options
from tests.division import Division, rank_of
from tidegate.stack.child import wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.postgres import PostgresServer
from tidegate.stack.store import StoreServer

load_hypothesis_profile()

# gRPC's own handlers run in every forked child and may abort it before it becomes the server that was asked for.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
START_TIMEOUT_S = 30.0
HOUR_S = 3600
ENDS_SOON_S = 20.0


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Division:
    """Divide the tests among processes (see ``division.py``)."""
    config.option.loadscopereorder = False
    return Division(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, in a run of several processes."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank_of(item.nodeid))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what stays anyway: a thousand modules and as many tests."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Begin no test at the end of an hour: many count by it, and what they counted would be gone in the next one."""
    left_s = HOUR_S - time.time() % HOUR_S
    if left_s < ENDS_SOON_S:
        time.sleep(left_s)


@pytest.fixture(scope="session", autouse=True)
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let HTTP clients load one of the world's authorities: no test calls one, and 140 cost 45 ms of CPU each time."""
    bundle = Path(certifi.where()).read_text("ascii")
    end = "-----END CERTIFICATE-----"
    one = tmp_path_factory.mktemp("authorities") / "one.pem"
    one.write_text(bundle[: bundle.index(end) + len(end)] + "\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(certifi, "where", lambda: str(one))
        yield


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A Postgres for the whole session. Tests take ``postgres_url``, which is a database of their own."""
    root = tmp_path_factory.mktemp("postgres")
    server = PostgresServer(
        root / "data",
        port=free_ports(1)[0],
        password=secrets.token_urlsafe(16),
        log_path=root / "postgres.log",
        durable=False,
    )
    server.prepare()
    server.child.start()
    try:
        wait_until_ready(server.child, server.is_ready, timeout_s=START_TIMEOUT_S)
        yield server
    finally:
        server.child.stop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database of the test's own, as ``postgresql+asyncpg://...``; dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    postgres_server.execute(f'CREATE DATABASE "{name}"')
    yield postgres_server.url(name)
    postgres_server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def start_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., StoreServer]]:
    """Start one more store: ``start_store(binary=None, settings={...})``; all of them stop with the session.

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
        root = tmp_path_factory.mktemp("store")
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


@pytest.fixture(scope="session")
def valkey_server(start_store: Callable[..., StoreServer]) -> StoreServer:
    """A Valkey for the whole session. Tests take ``valkey_url``, which is empty at their start."""
    return start_store()


@pytest.fixture
def valkey_url(valkey_server: StoreServer) -> str:
    """An empty Valkey."""
    _empty(valkey_server)
    return valkey_server.url


@pytest.fixture(scope="session")
def redis_server(start_store: Callable[..., StoreServer]) -> StoreServer:
    """The system's Redis (7.0 on Debian 12) for the whole session; skips where it is not installed."""
    return start_store(name="Redis", binary=redis_binary())


@pytest.fixture
def redis_url(redis_server: StoreServer) -> str:
    """An empty Redis."""
    _empty(redis_server)
    return redis_server.url


@pytest.fixture(params=["valkey", "redis"])
def store_url(request: pytest.FixtureRequest) -> str:
    """An empty store: the test runs once on Valkey and once on Redis."""
    url = request.getfixturevalue(f"{request.param}_url")
    assert isinstance(url, str)
    return url


@pytest.fixture(scope="session")
def start_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Start one more `tidegate up`: ``start_stack(regions=(...), nodes_per_region=1, demo=False, keep=False)``.

    For tests that stop it or kill parts of it; ``keep`` gives it a data directory, ``again=stack`` uses that one's.
    """
    started: list[Stack] = []

    def start(*, keep: bool = False, again: Stack | None = None, **wanted: Any) -> Stack:
        if again is None:
            stack = Stack(tmp_path_factory.mktemp("stack"), stack_options(**wanted), keep=keep)
        else:
            stack = Stack(again.log_path.parent, again.options, keep=True)
        started.append(stack)
        stack.start()
        return stack

    try:
        yield start
    finally:
        for stack in started:
            stack.stop()


@pytest.fixture(scope="session")
def stack(start_stack: Callable[..., Stack]) -> Stack:
    """One `tidegate up` for the whole session, with regions us-east and eu-west and two nodes in each.

    Tests share it: each makes clients and plans of its own and stops nothing.
    """
    return start_stack(nodes_per_region=2)


def _empty(server: StoreServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
