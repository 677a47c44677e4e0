"""The HTTP API of a real node as one more implementation of the rules: its clock is the store's and cannot be moved."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import httpx
import msgspec
from redis import Redis

from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.node import Node
from data_plane.store.packing import NEVER, Outcome
from testing.node import document_of, put_in_force, serving, settings_for, write_snapshot
from tests.conformance.drivers import Check
from tidegate.contract.config import Client, Plan
from tidegate.contract.limits import LimitRule


class HttpDriver:
    """Puts the rules of each batch into force, and asks ``/v1/check/batch``."""

    moves_clock = False

    def __init__(self, node: Node, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self._node = node
        self._loop = loop
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=30)
        self._revision = 1

    def decide(self, checks: Sequence[Check], now_us: int) -> list[list[Outcome]]:
        answers: list[list[Outcome]] = []
        for (subject, rules), group in groupby(checks, key=lambda check: (check.subject, check.rules)):
            self._enforce(subject, rules)
            asked = [{"client": subject, "cost": check.cost, "explain": True} for check in group]
            reply = self._http.post("/v1/check/batch", json={"checks": asked})
            reply.raise_for_status()
            answers += [_outcomes(decision) for decision in reply.json()["decisions"]]
        return answers

    def close(self) -> None:
        self._http.close()

    def _enforce(self, subject: str, rules: tuple[LimitRule, ...]) -> None:
        here = tuple(msgspec.structs.replace(rule, shares={"us-east": rule.limit}) for rule in rules)
        named = tuple(msgspec.structs.replace(rule, name=f"limit-{at}") for at, rule in enumerate(here))
        documents = [Plan(plan="p", limits=named), Client(client=subject, plan="p")]
        config = ConfigSet.empty().with_changes([document_of(document) for document in documents])
        self._revision += 1

        async def apply() -> None:
            put_in_force(self._node, RuleIndex.of("us-east", config), self._revision)

        asyncio.run_coroutine_threadsafe(apply(), self._loop).result(10)


@contextlib.contextmanager
def http_driver(folder: Path, redis_url: str) -> Iterator[HttpDriver]:
    """A node that serves on a thread of its own for as long as the block runs."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
    started: threading.Event = threading.Event()
    made: list[HttpDriver] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        snapshot = folder / "snapshot"
        await write_snapshot(snapshot, [])
        node = Node(settings_for(snapshot, redis_url))
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        async with serving(node) as url:
            made.append(HttpDriver(node, url, loop))
            stop.append((loop, ended))
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(15), "the node did not start"
        yield made[0]
    finally:
        for driver in made:
            driver.close()
        for loop, ended in stop:
            loop.call_soon_threadsafe(ended.set)
        thread.join(15)


def _outcomes(decision: dict) -> list[Outcome]:
    assert not decision["degraded"], decision
    delay_us = round(decision["delay_ms"] * 1000)
    return [
        Outcome(
            limit["allowed"],
            limit["remaining"],
            round(limit["reset_after_s"] * 1e6),
            0 if limit["allowed"] else NEVER if limit["retry_after_s"] is None else round(limit["retry_after_s"] * 1e6),
            delay_us,
        )
        for limit in decision["limits"]
    ]
