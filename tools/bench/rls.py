"""`python -m tools.bench.rls`: what a decision costs over Envoy's rate limit protocol (gRPC), beside HTTP, in one run.

Run by hand. One node is asked by both protocols for the same clients, and nginx answers a constant as the floor; at the
end ghz asks the node too, where `make go-tools` has installed it. Where `make bench-peers` was run, Envoy's service in
Go is asked for the same clients, on the same store.

Closed loop: 64 in flight (over gRPC on 8 connections); CPU time of the server's process a decision, which other work on
the machine blurs less than rates. Open loop: 2,000 requests a second at fixed instants, by the same kind of generator
for both protocols (``pacer.c``, ``rls_pacer.c``).
"""

import argparse
import array
import contextlib
import dataclasses
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest
from rich.console import Console
from rich.table import Table

from testing.go_tools import installed
from tidegate.stack.ports import free_ports
from tools.bench import rls_ghz
from tools.bench.errors import BenchError
from tools.bench.machine import bound_to, process_cpu_s
from tools.bench.open_loop import compiled
from tools.bench.place import Place, prepared_place
from tools.bench.variant import Launch, running
from tools.bench.variants import envoy_ratelimit, nginx_constant, tidegate_lane
from tools.bench.workload import Caller, callers, request_body

IN_FLIGHT, RLS_CONNECTIONS = 64, 8
RATE = 2_000
OPEN_S = 3.0
CALLERS = 10_000
GIVE_UP_MS = 60_000
HTTP_PACER, RLS_PACER = Path(__file__).with_name("pacer.c"), Path(__file__).with_name("rls_pacer.c")
METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"


class Turn(NamedTuple):
    """One turn of one server: CPU microseconds a decision in the closed loop, latencies of the open one."""

    cpu_us: float
    per_s: float
    p50_us: float
    p99_us: float


class Target(NamedTuple):
    """A server and how it is asked; ``generator`` is a command up to the file of instants."""

    title: str
    pid: int
    generator: Sequence[str | Path]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--requests", type=int, default=60_000, help="in the closed loop of a turn")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-rls-")))
        place = stack.enter_context(prepared_place())
        targets = list(_targets(stack, place, directory))
        turns: dict[str, list[Turn]] = {target.title: [] for target in targets}
        for _, target in itertools.product(range(arguments.turns), targets):
            turns[target.title].append(_turn(target, directory, arguments.requests, place.cores.load))
        _print(turns)
        rls_port = targets[1].generator[1]
        rls_ghz.print_ghz(targets[1].pid, f"127.0.0.1:{rls_port}", directory, place.cores.load, _request)


def _targets(stack: contextlib.ExitStack, place: Place, directory: Path) -> Iterator[Target]:
    rls_port = free_ports(1)[0]

    def launch(place: Place, port: int) -> Launch:
        lane = tidegate_lane.VARIANT.launch(place, port)
        return dataclasses.replace(lane, env={**lane.env, "TIDEGATE_RLS_PORT": str(rls_port)})

    http_pacer, rls_pacer = compiled(HTTP_PACER, directory), compiled(RLS_PACER, directory)
    http, rls = directory / "http", directory / "rls"
    asked = list(itertools.islice(callers("one"), CALLERS))
    http.write_bytes(b"".join(record(http_request(caller)) for caller in asked))
    rls.write_bytes(record(_header_block()) + b"".join(record(_request(one).SerializeToString()) for one in asked))

    def by_http(port: int) -> Sequence[str | Path]:
        return (http_pacer, str(port), str(IN_FLIGHT), http)

    def by_rls(port: int) -> Sequence[str | Path]:
        return (rls_pacer, str(port), str(RLS_CONNECTIONS), str(IN_FLIGHT // RLS_CONNECTIONS), rls)

    node = stack.enter_context(running(dataclasses.replace(tidegate_lane.VARIANT, launch=launch), place))
    yield Target("Tidegate, HTTP", node.pid, by_http(node.port))
    yield Target("Tidegate, gRPC", node.pid, by_rls(rls_port))
    nginx = stack.enter_context(running(nginx_constant.VARIANT, place))
    yield Target("nginx answering a constant, HTTP", nginx.pid, by_http(nginx.port))
    path = installed(envoy_ratelimit.PROGRAM)
    if path is not None:
        pid, port = stack.enter_context(envoy_ratelimit.running(place, path))
        yield Target("envoyproxy/ratelimit (Go), gRPC", pid, by_rls(port))


def _turn(target: Target, directory: Path, requests: int, core: int) -> Turn:
    cpu_s, began = process_cpu_s(target.pid), time.monotonic()
    drive(target, directory, array.array("q", bytes(8 * requests)), core)  # all are due at once
    cpu_us, took_s = (process_cpu_s(target.pid) - cpu_s) / requests * 1e6, time.monotonic() - began
    instants = array.array("q", (int(nth * 1e9 / RATE) for nth in range(int(RATE * OPEN_S))))
    latencies = sorted(drive(target, directory, instants, core)[::2])
    p50, p99 = (latencies[int(share * len(latencies))] / 1_000 for share in (0.5, 0.99))
    return Turn(cpu_us, requests / took_s, p50, p99)


def drive(target: Target, directory: Path, instants: "array.array[int]", core: int) -> "array.array[int]":
    """Have requests sent at these instants (ns); each one's latency and lateness (ns). Raises ``BenchError``."""
    due, result = directory / "instants", directory / "result"
    due.write_bytes(instants.tobytes())
    with bound_to(core):
        ran = subprocess.run(
            [*target.generator, due, result, str(GIVE_UP_MS)], capture_output=True, text=True, check=False
        )
    if ran.returncode:
        raise BenchError(f"{target.title}: {ran.stderr[-2_000:]}")
    return array.array("q", result.read_bytes())


def _print(turns: dict[str, list[Turn]]) -> None:
    console = Console(width=140)
    table = Table("server, protocol", "CPU µs a decision (least to most)", "a second", "open loop p50 µs", "p99 µs")
    for title, own in turns.items():
        costs = [turn.cpu_us for turn in own]
        table.add_row(
            title, f"{median(costs):.1f}  ({min(costs):.1f} to {max(costs):.1f})",
            f"{median(turn.per_s for turn in own):,.0f}", f"{median(turn.p50_us for turn in own):,.0f}",
            f"{median(turn.p99_us for turn in own):,.0f}",
        )  # fmt: skip
    console.print(table)
    by_http, by_rls = turns["Tidegate, HTTP"], turns["Tidegate, gRPC"]
    # turn by turn: what else the machine had to do concerns both of a turn alike
    for name, figure in (("CPU", "cpu_us"), ("p99 of the open loop", "p99_us")):
        ratios = [getattr(rls, figure) / getattr(http, figure) for http, rls in zip(by_http, by_rls, strict=True)]
        console.print(f"gRPC / HTTP, {name}: {median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def http_request(caller: Caller) -> bytes:
    """A check as it stands on the wire."""
    body = request_body(caller)
    head = b"POST /v1/check HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def _request(caller: Caller) -> RateLimitRequest:
    request = RateLimitRequest(domain="bench")
    entries = {"api_key": caller.key, "remote_address": caller.ip, "method": "GET", "path": caller.path}
    descriptor = request.descriptors.add()
    for key, value in entries.items():
        descriptor.entries.add(key=key, value=value)
    return request


def _header_block() -> bytes:
    """What a client sends once its table is filled: bytes that stay the same (Envoy writes the path out)."""
    fields = {":path": METHOD, ":authority": "node", "content-type": "application/grpc", "te": "trailers"}
    written = (b"\0%c%b%c%b" % (len(name), name.encode(), len(value), value.encode()) for name, value in fields.items())
    return b"\x83\x86" + b"".join(written)  # POST, http


def record(data: bytes) -> bytes:
    """One request of the file that a generator reads."""
    return len(data).to_bytes(4, sys.byteorder) + data


if __name__ == "__main__":
    main()
