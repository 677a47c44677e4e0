"""How long a replica has known a revision."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from control_plane.publishing.repository import Head
from control_plane.push import stream
from control_plane.push.stream import HeadWatcher, Views

STAGES = (Views(Head(2, "b"), Head(1, "a"), "eu", "eu-1"), Views(Head(3, "b"), Head(1, "a"), "eu"))


class Postgres:
    """A database and its connection, which closes once both stages of a roll-out were read."""

    def __init__(self) -> None:
        self.read_at_s: list[float] = []

    async def stay_connected(self, work: Callable[["Postgres"], Awaitable[None]], _: str) -> None:
        await work(self)

    @asynccontextmanager
    async def read(self, **_: object) -> AsyncIterator["Postgres"]:
        yield self

    async def views(self) -> Views:
        self.read_at_s.append(time.monotonic())
        return STAGES[len(self.read_at_s) - 1]

    def is_closed(self) -> bool:
        return len(self.read_at_s) == len(STAGES)

    async def add_listener(self, *_: object) -> None: ...

    def add_termination_listener(self, _: object) -> None: ...

    async def watch(self, _: object) -> None:
        await asyncio.Event().wait()


async def test_a_revision_is_known_since_it_was_first_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes outside the stage keep their revision when the stage moves."""
    monkeypatch.setattr(stream, "views", Postgres.views)
    postgres: Any = Postgres()
    watcher = HeadWatcher(postgres, 0.0)
    await watcher.run()
    seen_for_s = time.monotonic() - postgres.read_at_s[1]
    known_for_s = watcher.known_for_s(1)
    assert watcher.revision == 3
    assert known_for_s is not None
    assert known_for_s >= seen_for_s
