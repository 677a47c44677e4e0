"""`python -m bench.rls`: what a decision over Envoy's rate limit protocol (gRPC) costs a node, beside HTTP.

Run by hand. CPU time of the node's process, which other work on the machine blurs less than rates; both protocols ask
the same node for the same clients, in turns, with as many requests in flight.
"""

import asyncio
import dataclasses
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import psutil
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from rich.console import Console
from rich.table import Table

from bench.place import Place, prepared_place
from bench.variant import Launch, running
from bench.variants import tidegate_lane
from bench.workload import Caller, callers, request_body
from tidegate.stack.ports import LOOPBACK, free_ports

IN_FLIGHT = 64
TURN_S = 2.0
TURNS = 3
CALLERS = 1_000
Ask = Callable[[], Awaitable[None]]


def main() -> None:
    """Measure, and print a table."""
    rls_port = free_ports(1)[0]

    def launch(place: Place, port: int) -> Launch:
        lane = tidegate_lane.VARIANT.launch(place, port)
        return dataclasses.replace(lane, env={**lane.env, "TIDEGATE_RLS_PORT": str(rls_port)})

    with (
        prepared_place() as place,
        running(dataclasses.replace(tidegate_lane.VARIANT, launch=launch), place) as server,
    ):
        figures = asyncio.run(_measure(server.port, rls_port, psutil.Process(server.pid)))
    table = Table("protocol", "CPU µs a decision (median of turns)", "decisions in all")
    for name, (costs, decisions) in figures.items():
        table.add_row(name, f"{statistics.median(costs):.1f}  ({min(costs):.1f} to {max(costs):.1f})", str(decisions))
    console = Console()
    console.print(table)
    ratio = statistics.median(figures["gRPC"][0]) / statistics.median(figures["HTTP"][0])
    console.print(f"gRPC / HTTP = {ratio:.1f}, {IN_FLIGHT} in flight, one limit")


async def _measure(port: int, rls_port: int, node: psutil.Process) -> dict[str, tuple[list[float], int]]:
    figures: dict[str, tuple[list[float], int]] = {}
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{rls_port}") as channel:
        for _turn in range(TURNS):
            for name, askers in (("HTTP", _http(port)), ("gRPC", _grpc(channel))):
                cost_us, decisions = await _turn_of([await anext(askers) for _ in range(IN_FLIGHT)], node)
                costs, before = figures.get(name, ([], 0))
                figures[name] = ([*costs, cost_us], before + decisions)
    return figures


async def _turn_of(askers: list[Ask], node: psutil.Process) -> tuple[float, int]:
    """All ask one after the other until time is up; CPU microseconds of the node a decision, and decisions."""
    decided = 0

    async def keep_asking(ask: Ask, until: float) -> None:
        nonlocal decided
        while time.monotonic() < until:
            await ask()
            decided += 1

    await asyncio.gather(*(ask() for ask in askers))
    before = node.cpu_times()
    until = time.monotonic() + TURN_S
    await asyncio.gather(*(keep_asking(ask, until) for ask in askers))
    after = node.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return used_s / decided * 1e6, decided


async def _http(port: int) -> AsyncIterator[Ask]:
    bodies = itertools.cycle([request_body(caller) for caller in itertools.islice(callers("one"), CALLERS)])
    while True:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)

        async def ask(reader: asyncio.StreamReader = reader, writer: asyncio.StreamWriter = writer) -> None:
            body = next(bodies)
            writer.write(b"POST /v1/check HTTP/1.1\r\nhost: n\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)

        yield ask


async def _grpc(channel: grpc.aio.Channel) -> AsyncIterator[Ask]:
    call = channel.unary_unary(
        "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
        request_serializer=RateLimitRequest.SerializeToString, response_deserializer=RateLimitResponse.FromString,
    )  # fmt: skip
    requests = itertools.cycle([_request(caller) for caller in itertools.islice(callers("one"), CALLERS)])

    async def ask() -> None:
        answer = await call(next(requests))
        assert answer.overall_code == RateLimitResponse.OK

    while True:
        yield ask


def _request(caller: Caller) -> RateLimitRequest:
    request = RateLimitRequest(domain="bench")
    entries = {"api_key": caller.key, "remote_address": caller.ip, "method": "GET", "path": caller.path}
    descriptor = request.descriptors.add()
    for key, value in entries.items():
        descriptor.entries.add(key=key, value=value)
    return request


if __name__ == "__main__":
    main()
