"""Stores of the adapter under test, closed after each test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.store import RedisCounterStore

OpenStore = Callable[..., Awaitable[RedisCounterStore]]


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Start a store: ``await open_store(url, **settings)``; closed with the test."""
    opened: list[RedisCounterStore] = []

    async def start(url: str, **settings: Any) -> RedisCounterStore:
        # Tests share two cores with others: the deadline is for faults here, not for speed.
        patient = {"deadline_ms": 1_000.0, "connect_timeout_ms": 10_000.0}
        store = RedisCounterStore(RedisSettings(url=url, **(patient | settings)))
        opened.append(store)
        await store.start()
        return store

    yield start
    for store in opened:
        await store.close()
