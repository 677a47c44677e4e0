"""Clients and nodes that are killed in the middle: what they held is lost, and nothing more is admitted for it."""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import httpx
import pytest

from testing.forked import ForkedChild
from testing.node import settings_for
from tests.clients.conftest import config
from tests.clients.spender import spend
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports

LIMIT = 4_000
SPENDERS = 3
PATIENCE_S = 60.0


class Spenders:
    """Processes that spend leases, and what they have told so far."""

    def __init__(self, *urls: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.admitted = self.denied = 0
        self.processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        for _ in range(SPENDERS):
            ours, theirs = context.Pipe(duplex=False)
            # A page: nobody admits much more than was heard of, so that a kill is in the middle.
            fcntl.fcntl(theirs.fileno(), fcntl.F_SETPIPE_SZ, 4_096)
            process = context.Process(target=spend, args=(urls, theirs), daemon=True)
            process.start()
            theirs.close()  # so that a pipe ends with its process
            self.processes.append(process)
            self._pipes.append(ours)

    def listen_until(self, enough: Callable[[], bool]) -> None:
        """Read what they tell. It waits where there is nothing: a node in this process needs the time."""
        deadline = time.monotonic() + PATIENCE_S
        while not enough():
            assert time.monotonic() < deadline, f"{self.admitted} admitted, {self.denied} denied"
            self._read(1.0)

    def end(self) -> None:
        """Kill those that still run, and read what they told before."""
        for process in self.processes:
            kill(process.pid)
            process.join(10)
        while self._pipes:
            self._read(10.0)

    def _read(self, timeout_s: float) -> None:
        for pipe in wait(self._pipes, timeout_s):
            try:
                told = pipe.recv()
            except (EOFError, OSError):  # killed, perhaps in the middle of a word
                self._pipes.remove(pipe)
                pipe.close()
                continue
            self.admitted, self.denied = self.admitted + told, self.denied + (not told)


def kill(pid: int | None) -> None:
    """At once, whatever it was doing."""
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def spenders() -> Iterator[Callable[..., Spenders]]:
    """Start them: ``spenders(url, ...)``."""
    started: list[Spenders] = []

    def start(*urls: str) -> Spenders:
        started.append(Spenders(*urls))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            one.end()


@pytest.fixture
def killable_node(tmp_path, valkey_url) -> Iterator[Callable[[], tuple[str, Child]]]:
    """Start a node in a process of its own, as it is deployed, with the configuration of the first ``start_node``."""
    port = free_ports(1)[0]
    settings = settings_for(tmp_path / "snapshot-0", valkey_url, port=port, node="n2", drain_s=0, redis_deadline_ms=200)
    secret = {"redis_url": valkey_url, "region_credential": settings.region_credential.get_secret_value()}
    told = settings.model_dump(include=settings.model_fields_set) | secret
    env = {f"TIDEGATE_{name.upper()}": str(value) for name, value in told.items()}
    child = ForkedChild("node", "data-plane", log_path=tmp_path / "node.log", env=env)
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def start() -> tuple[str, Child]:
        child.start()
        wait_until_ready(child, is_ready, timeout_s=PATIENCE_S)
        return url, child

    try:
        yield start
    finally:
        child.stop()


def test_clients_that_are_killed_lose_what_they_held_and_nothing_more_is_admitted(start_node, spenders):
    running = spenders(start_node(config(LIMIT)).url)
    running.listen_until(lambda: running.admitted > LIMIT // 3)
    kill(running.processes[0].pid)
    running.listen_until(lambda: running.denied >= SPENDERS)
    running.end()
    # Whoever is killed may have admitted one more than it told.
    assert LIMIT // 3 < running.admitted <= LIMIT


def test_a_node_that_is_killed_takes_what_was_leased_from_it_along_and_nothing_more_is_admitted(
    start_node, killable_node, spenders
):
    stays = start_node(config(LIMIT))
    url, dies = killable_node()
    running = spenders(url, stays.url)
    running.listen_until(lambda: running.admitted > LIMIT // 3)
    kill(dies.pid)
    before = running.admitted
    running.listen_until(lambda: running.denied >= SPENDERS)
    kill(running.processes[0].pid)
    running.end()
    assert dies.exit_code() == -signal.SIGKILL
    assert LIMIT // 3 < before < running.admitted <= LIMIT
