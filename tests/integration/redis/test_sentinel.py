"""Sentinel: a master dies under load and its replica takes over, with an answer to every decision."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import redis
from testing.stores import redis_binary
from tests.integration.redis.clusters import wait_for
from tests.integration.redis.conftest import OpenStore
from tests.integration.redis.load import Load
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.store import StoreServer

PASSWORD = "one-for-all"


@pytest.fixture
def watched(
    start_store: Callable[..., StoreServer], tmp_path: Path
) -> Iterator[tuple[StoreServer, tuple[tuple[str, int], ...]]]:
    """A master with one replica, watched by three sentinels that call it dead after half a second."""
    settings = {"repl-diskless-sync-delay": "0", "shutdown-timeout": "0", "repl-ping-replica-period": "1"}
    master, replica = (start_store(name="Redis", binary=redis_binary(), settings=settings) for _ in range(2))
    for server in (master, replica):
        with redis.Redis.from_url(server.url) as client:
            client.config_set("masterauth", PASSWORD)
            client.config_set("requirepass", PASSWORD)
    urls = [f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0" for server in (master, replica)]
    sentinels: list[Child] = []
    ports = free_ports(3)
    with redis.Redis.from_url(urls[1]) as client, redis.Redis.from_url(urls[0]) as first:
        client.replicaof("127.0.0.1", master.port)
        wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        for port in ports:
            folder = tmp_path / str(port)
            folder.mkdir()
            (folder / "sentinel.conf").write_text(
                f"bind 127.0.0.1\nport {port}\ndir {folder}\nsentinel monitor main 127.0.0.1 {master.port} 2\n"
                f"sentinel auth-pass main {PASSWORD}\nsentinel down-after-milliseconds main 500\n"
                "sentinel failover-timeout main 3000\n"
            )
            command = [str(redis_binary()), str(folder / "sentinel.conf"), "--sentinel"]
            child = Child("Sentinel", command, log_path=folder / "log")
            child.start()
            sentinels.append(child)
        try:
            for port, child in zip(ports, sentinels, strict=True):
                wait_until_ready(child, lambda port=port: _sees_all(port), timeout_s=15)
            assert first.ping()
            yield master, tuple(("127.0.0.1", port) for port in ports)
        finally:
            for child in sentinels:
                child.stop()


def _sees_all(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            state = client.sentinel_master("main")
    except redis.RedisError:
        return False
    return state["num-other-sentinels"] == 2 and state["num-slaves"] == 1


async def test_a_failover_under_load_answers_every_decision(watched, open_store: OpenStore) -> None:
    master, sentinels = watched
    store = await open_store(
        f"redis://:{PASSWORD}@unused/0", shape="sentinel", sentinels=sentinels, master_name="main", backoff_cap_ms=200
    )
    load = Load(store)
    await load.verdicts(100, "allowed")
    first = store.status().shards[0].server.run_id
    master.child.kill()
    await load.verdicts(100, "circuit_open")
    await load.verdicts(100, "allowed", timeout_s=20)
    verdicts = await load.stop()
    assert set(verdicts) <= {"allowed", "circuit_open", "connection_lost", "timeout", "read_only"}
    assert store.status().shards[0].server.run_id != first
    assert store.status().usable
    assert await store.execute("DBSIZE") > 0
