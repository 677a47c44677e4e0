"""Real servers for tests: every one is our own child process on a free port, with its data under pytest's tmp path."""

import gc
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import redis

from testing.effort import load_hypothesis_profile
from testing.stack import StartStack, stacks_started
from testing.stores import START_TIMEOUT_S, StartStore, redis_binary, stores_started
from tests.division import Division, rank_of
from tidegate.stack.child import wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.postgres import USER, PostgresServer
from tidegate.stack.store import StoreServer

gc.disable()  # until everything is loaded: see pytest_collection_finish
load_hypothesis_profile()

# gRPC's own handlers run in every forked child and may abort it before it becomes the server that was asked for.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
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
    gc.enable()


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
    password = secrets.token_urlsafe(16)
    server = PostgresServer(
        root / "data",
        port=free_ports(1)[0],
        password=password,
        log_path=root / "postgres.log",
        durable=False,
    )
    server.prepare()
    server.child.start()
    try:
        wait_until_ready(server.child, server.is_ready, timeout_s=START_TIMEOUT_S)
        # thousands of rounds take more CPU than the rest of a connection, and a test makes ten
        server.execute(f"SET scram_iterations = 1; ALTER ROLE {USER} PASSWORD '{password}'")
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


def _stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStore]:
    """Start one more store (see ``stores_started``): for a test, for all tests of a file, or for all."""
    with stores_started(tmp_path_factory) as start:
        yield start


start_store = pytest.fixture(_stores)
start_module_store = pytest.fixture(scope="module")(_stores)
start_session_store = pytest.fixture(scope="session")(_stores)


@pytest.fixture(scope="session")
def valkey_server(start_session_store: StartStore) -> StoreServer:
    """A Valkey for the whole session. Tests take ``valkey_url``, which is empty at their start."""
    return start_session_store()


@pytest.fixture
def valkey_url(valkey_server: StoreServer) -> str:
    """An empty Valkey."""
    _empty(valkey_server)
    return valkey_server.url


@pytest.fixture(scope="session")
def redis_server(start_session_store: StartStore) -> StoreServer:
    """The system's Redis (7.0 on Debian 12) for the whole session; skips where it is not installed."""
    return start_session_store(name="Redis", binary=redis_binary())


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


def _stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStack]:
    """Start one more `tidegate up` (see ``stacks_started``): for a test, or for all tests of a file."""
    with stacks_started(tmp_path_factory) as start:
        yield start


start_stack = pytest.fixture(_stacks)
start_module_stack = pytest.fixture(scope="module")(_stacks)


def _empty(server: StoreServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
