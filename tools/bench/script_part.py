"""Measures the store alone: CPU for one limit, by algorithm and by how many limits a script call holds."""

import random
import socket
import time
from collections.abc import Callable, Iterator

import hiredis
import redis

from data_plane.store.packing import encode_check
from data_plane.store.redis.calls import pack_command
from data_plane.store.scripts import decide_script
from testing.packed import decode_reply
from tidegate.contract.limits import Algorithm
from tidegate.stack.store import StoreServer
from tools.bench.errors import BenchError
from tools.bench.machine import bound_to, process_cpu_s
from tools.bench.place import Place
from tools.bench.results import ScriptRun
from tools.bench.store_counts import empty, store_client
from tools.bench.store_rules import ALGORITHMS, bound_limit, counter_key

LIMITS_A_CALL = (1, 8, 32, 128)
SUBJECTS = 10_000
CALLS_IN_FLIGHT = 2
PREPARED_CALLS = 256
DIRTY_KEY = b"tg:dirty"

Report = Callable[[ScriptRun], None]


def measure_script(
    server: StoreServer, name: str, place: Place, sizes: tuple[int, ...], *, repetition: int, seconds: float,
    report: Report,
) -> None:  # fmt: skip
    """Every algorithm with every size on one server, from a connection bound to the other core."""
    with store_client(server.url) as client, bound_to(place.cores.server):
        sha = client.script_load(decide_script())
        for algorithm in ALGORITHMS:
            empty(client)
            for limits in sizes:
                cpu_us = _cpu_of_a_limit(server, client, str(sha), algorithm, limits, seconds)
                report(ScriptRun(server=name, algorithm=algorithm, limits=limits, repetition=repetition, cpu_us=cpu_us))


def _cpu_of_a_limit(
    server: StoreServer, client: redis.Redis, sha: str, algorithm: Algorithm, limits: int, seconds: float
) -> float:
    calls = list(_calls(sha, algorithm, limits))
    with _raw_connection(server) as link:
        reader = hiredis.Reader()
        _send_calls(link, reader, calls, limits, time.monotonic() + seconds / 4)
        before = process_cpu_s(server.child.pid)
        done = _send_calls(link, reader, calls, limits, time.monotonic() + seconds)
        took_s = process_cpu_s(server.child.pid) - before
    if not client.dbsize():
        raise BenchError(f"{algorithm}: the script stored nothing")
    return took_s / (done * limits) * 1e6


def _calls(sha: str, algorithm: Algorithm, limits: int) -> Iterator[bytes]:
    """Packed calls of ``limits`` decisions with one limit each, for clients drawn at random."""
    limit = bound_limit(algorithm)
    check = encode_check(1, [limit.params])
    randomly = random.Random(limits)
    for _ in range(PREPARED_CALLS):
        keys = [counter_key(limit, randomly.randrange(SUBJECTS)) for _ in range(limits)]
        yield pack_command(b"EVALSHA", sha, limits + 1, DIRTY_KEY, *keys, *[check] * limits)


def _send_calls(link: socket.socket, reader: hiredis.Reader, calls: list[bytes], limits: int, until: float) -> int:
    """Keep a few calls in flight until a time; returns how many were answered, each of them rightly."""
    sent = answered = 0
    counts = [1] * limits
    while True:
        while sent - answered < CALLS_IN_FLIGHT and time.monotonic() < until:
            link.sendall(calls[sent % len(calls)])
            sent += 1
        if sent == answered:
            return answered
        reader.feed(link.recv(65_536))
        while (reply := reader.gets()) is not False:
            answered += 1
            if not isinstance(reply, bytes):
                raise BenchError(f"the script failed: {reply}")
            if answered == 1 and not all(outcomes[0].allowed for outcomes in decode_reply(reply, counts)[1]):
                raise BenchError("the script denied: what is measured is a decision that passes")


def _raw_connection(server: StoreServer) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    password = server.url.partition("//:")[2].partition("@")[0]
    link.sendall(pack_command(b"AUTH", password))
    if link.recv(64) != b"+OK\r\n":
        raise BenchError("the store refused our password")
    return link
