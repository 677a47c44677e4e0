"""A real node for the client's tests, served on a thread of its own: clients may block theirs."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_plane.node import Node
from testing.node import key_of, rule, serving, settings_for, write_snapshot
from tidegate.contract.config import Client, Endpoint, Plan


class ServedNode:
    """A node at ``url`` that enforces ``values``, with ``settings`` of its own; ``stop()`` ends it."""

    def __init__(self, snapshot: Path, store_url: str, values: list, settings: dict) -> None:
        self._snapshot = snapshot
        self._store_url = store_url
        self._values = values
        self._settings = settings
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self.node: Node | None = None
        self.url = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    async def _serve(self) -> None:
        await write_snapshot(self._snapshot, self._values)
        self.node = Node(settings_for(self._snapshot, self._store_url, **self._settings))
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self.node) as self.url:
            self._ready.set()
            await self._end.wait()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(20)


def config(limit: int, **members) -> list:
    """The client acme with the key ``tg_acme``, one hourly limit, and three routes."""
    return [
        Plan(plan="p", limits=(rule(1, "hourly", limit, **members),)),
        Client(client="acme", plan="p"),
        key_of("acme", "tg_acme"),
        Endpoint(endpoint="get-user", method="GET", path="/users/{id}"),
        Endpoint(endpoint="export", method="POST", path="/export", cost=5),
        Endpoint(endpoint="health", method="GET", path="/healthz", exempt=True),
    ]


@pytest.fixture
def start_node(tmp_path: Path, valkey_url: str) -> Iterator[Callable[..., ServedNode]]:
    """Start a node: ``start_node(config(limit))``; several share the store."""
    started: list[ServedNode] = []

    def start(values: list, **settings) -> ServedNode:
        started.append(ServedNode(tmp_path / f"snapshot-{len(started)}", valkey_url, values, settings))
        return started[-1]

    try:
        yield start
    finally:
        for node in started:
            node.stop()
