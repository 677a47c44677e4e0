"""Open loop: requests leave at instants fixed beforehand, whether or not earlier ones were answered.

Latency counts from the intended instant, so that a stall shows in every request that it delayed (no coordinated
omission). One thread over epoll; between requests it sleeps, because it shares its core with the store.
"""

import gc
import random
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from bench.errors import BenchError
from bench.machine import bound_to, wake_precisely
from bench.seen import Seen
from tidegate.stack.ports import LOOPBACK

Arrivals = Literal["even", "poisson"]
WARM_UP_S = 0.5
DRAIN_S = 5.0
NS = 1_000_000_000
# Below this a sleep would end later than a look at the clock.
SHORTEST_SLEEP_NS = 20_000


class Plan(msgspec.Struct, frozen=True):
    """What to send: ``rate`` requests a second for ``seconds``, after a short warm-up at the same rate."""

    port: int
    path: str
    bodies: str
    rate: float
    seconds: float
    connections: int
    arrivals: Arrivals


def drive(plan: Plan, core: int) -> Seen:
    """Run the generator in a process of its own, bound to a core."""
    command = [sys.executable, "-m", "bench.open_loop"]
    timeout_s = WARM_UP_S + plan.seconds + 2 * DRAIN_S
    try:
        with bound_to(core):
            ran = subprocess.run(
                command, input=msgspec.json.encode(plan), capture_output=True, timeout=timeout_s, check=False
            )
    except subprocess.TimeoutExpired:
        raise BenchError(f"the open-loop generator did not end within {timeout_s:.0f} s") from None
    if ran.returncode:
        raise BenchError(f"the open-loop generator failed: {ran.stderr.decode(errors='replace')[-2_000:]}")
    return msgspec.json.decode(ran.stdout, type=Seen)


class _Connection:
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("due_ns", "got", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due_ns = 0
        self.got = b""

    def send(self, request: bytes, due_ns: int) -> None:
        self.due_ns = due_ns
        if self.socket.send(request) != len(request):
            raise BenchError("a request did not fit into the socket's buffer")

    def receive(self) -> bool:
        """Read what is there; whether the answer is complete."""
        data = self.socket.recv(262_144)
        if not data:
            raise BenchError("the server closed a connection")
        self.got = self.got + data if self.got else data
        if not _is_complete(self.got):
            return False
        if not self.got.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"refused: {self.got[:500]!r}")
        self.got = b""
        return True


class _Times(NamedTuple):
    """Nanoseconds, of the requests that count; ``sent`` counts all."""

    latencies: list[int]
    lateness: list[int]
    sent: int


def run(plan: Plan) -> Seen:
    """Send everything, wait for the last answers."""
    wake_precisely()
    requests = _requests(plan)
    with ExitStack() as held:
        connections = [_Connection(plan.port) for _ in range(plan.connections)]
        for connection in connections:
            held.callback(connection.socket.close)
        gc.disable()  # a collection would delay the requests that are due meanwhile
        held.callback(gc.enable)
        began = time.perf_counter_ns() + NS // 100
        counts_from = began + int(WARM_UP_S * NS)
        ends = counts_from + int(plan.seconds * NS)
        times = _send_all(
            held.enter_context(select.epoll()),
            connections,
            requests,
            _instants(plan, began, ends),
            counts_from,
            gives_up=ends + int(DRAIN_S * NS),
        )
    latencies, lateness = sorted(times.latencies), sorted(times.lateness)
    return Seen(
        requests=len(latencies), all_requests=times.sent, seconds=plan.seconds,
        p50_us=_percentile_us(latencies, 0.5), p99_us=_percentile_us(latencies, 0.99),
        p999_us=_percentile_us(latencies, 0.999), late_p99_us=_percentile_us(lateness, 0.99),
        offered_per_s=plan.rate,
    )  # fmt: skip


def _send_all(
    epoll: select.epoll,
    connections: list[_Connection],
    requests: list[bytes],
    instants: Iterator[int],
    counts_from: int,
    gives_up: int,
) -> _Times:
    by_descriptor = {}
    for connection in connections:
        by_descriptor[connection.socket.fileno()] = connection
        epoll.register(connection.socket.fileno(), select.EPOLLIN)
    idle = deque(connections)
    clock = time.perf_counter_ns
    latencies: list[int] = []
    lateness: list[int] = []
    at, size = 0, len(requests)
    due = next(instants, None)
    while due is not None or len(idle) < len(connections):
        now = clock()
        while due is not None and due <= now and idle:
            connection = idle.popleft()
            connection.send(requests[at % size], due)
            at += 1
            if due >= counts_from:
                lateness.append(now - due)
            due = next(instants, None)
            now = clock()
        if now > gives_up:
            raise BenchError(f"{len(connections) - len(idle)} requests got no answer within {DRAIN_S:.0f} s")
        for descriptor, _ in _events(epoll, due if idle else None, now):
            connection = by_descriptor[descriptor]
            if connection.receive():
                if connection.due_ns >= counts_from:
                    latencies.append(clock() - connection.due_ns)
                idle.append(connection)
    return _Times(latencies, lateness, at)


def _events(epoll: select.epoll, due: int | None, now: int) -> list[tuple[int, int]]:
    """What has arrived, after waiting for it until ``due`` at the longest (a tenth of a second without)."""
    wait_ns = NS // 10 if due is None else due - now
    # epoll_wait counts in milliseconds; select counts in microseconds and can wait for an epoll.
    if wait_ns > SHORTEST_SLEEP_NS and not select.select([epoll], [], [], wait_ns / NS)[0]:
        return []
    return epoll.poll(0)


def _instants(plan: Plan, began: int, ends: int) -> Iterator[int]:
    """When each request is to leave (ns)."""
    gap = NS / plan.rate
    at = float(began)
    randomly = random.Random(1)
    while at < ends:
        yield int(at)
        at += gap if plan.arrivals == "even" else randomly.expovariate(1) * gap


def _requests(plan: Plan) -> list[bytes]:
    bodies = Path(plan.bodies).read_bytes().splitlines()
    head = f"POST {plan.path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Type: application/json\r\nContent-Length: "
    return [head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]


def _is_complete(got: bytes) -> bool:
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = got[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise BenchError(f"an answer without content-length: {head!r}")
    length = int(head[at + 17 :].partition(b"\r\n")[0])
    return len(got) >= end + 4 + length


def _percentile_us(ordered: list[int], share: float) -> float:
    if not ordered:
        raise BenchError("nothing was answered")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1_000


if __name__ == "__main__":
    outcome = run(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
