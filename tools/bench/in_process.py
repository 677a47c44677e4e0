"""CPU of a decision inside one process: ``python -m tools.bench.in_process``.

Connections whose transports discard, the node's own handler, decider and store adapter, and a link that answers
at once in the store's place: all but the kernel, uvloop's sockets and the store. It takes seconds, and the smallest of
many short runs hardly depends on what else the machine does: what it is for is comparing one version with another.
"""

import asyncio
import gc
import hashlib
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog
import typer
import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

import data_plane.node
from data_plane.http.decision_handler import DecisionFastPath
from data_plane.node import Node
from data_plane.settings import Settings
from tidegate.contract.credentials import make_credential
from tidegate.http_front.front import Front
from tidegate.http_front.serving import protocol_class
from tools.bench.snapshot import write_snapshot
from tools.bench.workload import (
    BATCH,
    CLIENTS,
    REGION,
    anonymous_body,
    callers,
    named_body,
    request_body,
    special_cases,
)

CONNECTIONS = 64
REQUESTS_A_TURN = 20
"""How many of them have sent something when the loop looks, and how many decisions then share a script call."""
DECISIONS_A_RUN = 10_000
RUNS = 25
REMEMBERED = 500
KINDS = (
    "one", "three", "batch", "batch-three", "authorize", "authorize-three", "named", "named-batch",
    "own", "anonymous", "denied", "denied-remembered", "authorize-denied", "authorize-denied-remembered",
)  # fmt: skip
NOWHERE = "http://127.0.0.1:9"


class _Transport:
    """Discards what is written."""

    sent = b""

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default

    def write(self, data: bytes) -> None:
        self.sent = data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """The connection was idle for too long."""


class _Link:
    """Answers every call when told: plenty is left of an hour's window and nothing to wait for, or it ``denies``."""

    def __init__(self) -> None:
        self.denies = False
        self.waiting: tuple[object, ...] = ()
        self.calls: list[Any] = []

    def send(self, _packed: bytes, takers: tuple[object, ...]) -> None:
        self.calls += takers

    def answer(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            limits = sum(len(check.keys) for check in call.checks)
            figures = ((0, 1_234_567_890, -1_234_567_890) if self.denies else (999_999_000, 1_234_567_890, 0)) * limits
            call.on_reply(struct.pack(f"<{1 + len(figures)}q", time.time_ns() // 1_000, *figures))


def requests_of(kind: str) -> list[bytes]:
    """Whole requests of every client, as they come in."""
    plan = "three" if kind.endswith("three") else "one"
    if kind.startswith("authorize"):
        return [
            f"GET /v1/authorize{one.path} HTTP/1.1\r\nHost: node\r\nX-API-Key: {one.key}\r\n"
            f"X-Forwarded-For: {one.ip}\r\n\r\n".encode()
            for one in callers(plan)
        ]
    body_of = {"named": named_body, "named-batch": named_body, "anonymous": anonymous_body}.get(kind, request_body)
    bodies = [body_of(caller) for caller in callers(plan)]
    path = b"/v1/check"
    if "batch" in kind:
        groups = (bodies[start : start + BATCH] for start in range(0, len(bodies), BATCH))
        bodies = [b'{"checks":[' + b",".join(group) + b"]}" for group in groups]
        path = b"/v1/check/batch"
    head = b"POST %b HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return [head % (path, len(body)) + body for body in bodies]


async def _node(directory: Path, *, max_denials: int) -> tuple[Node, _Link]:
    data_plane.node.MAX_DENIALS = max_denials
    snapshot = directory / "snapshot"
    settings = Settings(
        node="bench-1", region=REGION, redis_url="redis://127.0.0.1:1", control_plane_url=NOWHERE, trust="network",
        control_plane_public_key=await write_snapshot(snapshot), snapshot_file=snapshot,
        region_credential=make_credential("region", hashlib.sha256(b"bench").digest()),
    )  # fmt: skip
    node = Node(settings)
    node.configuration.restore()
    link = _Link()
    keeper = node.store.topology.shard.keeper  # type: ignore[attr-defined]  # of a single store
    keeper.link, keeper.sha = link, b"0" * 40
    return node, link


def _connections(node: Node) -> list[Any]:
    protocol: Any = protocol_class(Front(DecisionFastPath(node.handler)))
    config, state, loop = Config(app="", loop="none"), ServerState(), asyncio.get_running_loop()
    made = [protocol(config, state, {}, loop) for _ in range(CONNECTIONS)]
    for connection in made:
        connection.connection_made(_Transport())
    return made


async def _runs(kind: str, connections: list[Any], link: _Link) -> list[float]:
    """Microseconds of CPU a decision, a run each, in order of size."""
    requests = requests_of(kind)
    if "remembered" in kind:
        requests = requests[:REMEMBERED]  # they all come again before a second is over
    link.denies = "denied" in kind
    in_one, at_once = (BATCH, 1) if "batch" in kind else (1, REQUESTS_A_TURN)
    took, at = [], 0
    for _ in range(RUNS):
        began, decisions = time.process_time_ns(), 0
        while decisions < DECISIONS_A_RUN:
            for number in range(at_once):
                connections[number].data_received(requests[at % len(requests)])
                at += 1
            await asyncio.sleep(0)
            while link.calls:
                link.answer()
                await asyncio.sleep(0)
                if in_one > 1 and not link.calls:  # the next part of a batch is asked in a turn of its own
                    await asyncio.sleep(0)
            decisions += in_one * at_once
        took.append((time.process_time_ns() - began) / decisions / 1_000)
    answer, status = connections[0]._transport.sent, b"429" if link.denies and "batch" not in kind else b"200"  # noqa: SLF001
    if not answer.startswith(b"HTTP/1.1 %b " % status):
        raise RuntimeError(f"what was measured is not such a decision: {answer!r}")
    return sorted(took)


async def _measure(kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        # who asks again within the second is denied from memory, unless there is no room to remember
        nodes = [await _node(Path(directory), max_denials=most) for most in (1, CLIENTS)]
        gc.set_threshold(50_000, 50, 1_000)  # as data_plane.main has it
        plain = nodes[0][0].decider.index
        special = plain.with_changes(special_cases())
        for kind in kinds:
            node, link = nodes["remembered" in kind]
            node.decider.index = special if kind in {"own", "anonymous"} else plain
            took = await _runs(kind, _connections(node), link)
            print(f"{kind:16} smallest {took[0]:6.2f}, median {took[len(took) // 2]:6.2f} µs of CPU a decision")


def main(kinds: list[str] = typer.Argument(default=None)) -> None:  # noqa: B008  typer's way
    """What to measure: one, three, batch, batch-three, authorize, authorize-three; named and named-batch, where client
    and endpoint are named as an SDK does; own, where each client has an override; anonymous; denied, denied-remembered,
    authorize-denied and authorize-denied-remembered, by the store or from memory; all of them without.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    chosen = kinds or [*KINDS]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(chosen))


if __name__ == "__main__":
    typer.run(main)
