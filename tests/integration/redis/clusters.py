"""A Cluster of three masters, and moving one of its slots."""

import time
from collections.abc import Callable
from pathlib import Path

import redis
from tidegate.stack.ports import free_ports
from tidegate.stack.store import StoreServer

SLOTS = 16_384
PASSWORD = "one-for-all"


def start_cluster(start_store: Callable[..., StoreServer], name: str, binary: Path | None) -> list[StoreServer]:
    """Three masters with a third of the slots each; returns once every one of them says that the state is ok."""
    buses = free_ports(3)
    servers = [
        start_store(
            name=name,
            binary=binary,
            settings={"cluster-enabled": "yes", "cluster-port": str(bus), "cluster-node-timeout": "2000"},
        )
        for bus in buses
    ]
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", PASSWORD)
        server.url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"
    clients = [redis.Redis.from_url(server.url) for server in servers]
    try:
        for number, client in enumerate(clients):
            first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            if number:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, buses[0])
        wait_for(lambda: all(b"cluster_state:ok" in raw_info(client) for client in clients))
        wait_for(lambda: all(known_masters(client) == 3 for client in clients))
    finally:
        for client in clients:
            client.close()
    return servers


def raw_info(client: redis.Redis) -> bytes:
    info = client.execute_command("CLUSTER", "INFO")
    return "".join(f"{name}:{value}\n" for name, value in info.items()).encode() if isinstance(info, dict) else info


def known_masters(client: redis.Redis) -> int:
    return len(client.execute_command("CLUSTER", "SLOTS"))


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Poll until ``condition()`` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


class SlotMove:
    """One slot on its way from one master to another, step by step."""

    def __init__(self, source: StoreServer, target: StoreServer, slot: int) -> None:
        self._from, self._to = redis.Redis.from_url(source.url), redis.Redis.from_url(target.url)
        self._target = target
        self._slot = slot
        self._from_id = self._from.execute_command("CLUSTER", "MYID")
        self._to_id = self._to.execute_command("CLUSTER", "MYID")

    def begin(self) -> None:
        """From here on the source asks clients to look at the target for what it no longer has."""
        self._to.execute_command("CLUSTER", "SETSLOT", self._slot, "IMPORTING", self._from_id)
        self._from.execute_command("CLUSTER", "SETSLOT", self._slot, "MIGRATING", self._to_id)

    def move_keys(self) -> int:
        """Move what the slot holds now; returns how many keys."""
        keys = self._from.execute_command("CLUSTER", "GETKEYSINSLOT", self._slot, 1000)
        if keys:
            self._from.execute_command(
                "MIGRATE", "127.0.0.1", self._target.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys
            )
        return len(keys)

    def end(self) -> None:
        """The target owns the slot."""
        self._to.execute_command("CLUSTER", "SETSLOT", self._slot, "NODE", self._to_id)
        self._from.execute_command("CLUSTER", "SETSLOT", self._slot, "NODE", self._to_id)

    def close(self) -> None:
        self._from.close()
        self._to.close()
