"""Nodes that count a question and then break off: no gateway may ask again, there or at the other node."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from testing.gateway import GatewayServer
from testing.node import GATEWAY_TOKEN
from testing.upstream import Upstream
from tests.gateways.setting import EndClient, LoopThread
from tidegate.stack.ports import LOOPBACK

ALLOWED = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nRateLimit: "p";r=1;t=1\r\n\r\n'
FAULTS = {"hangs up": b"", "garbage": b"\x00\xff nonsense\r\n\r\n", "half an answer": b"HTTP/1.1 200 OK\r\nContent-Le"}


class BreakingNode:
    """Sound, until ``fault`` is set: then it reads a question, counts it, and answers it so, closing the connection.

    What carries an ``X-Request-Id`` that it has seen counts once: a node that was given a token does the same.
    """

    def __init__(self) -> None:
        self.fault: bytes | None = None
        self.counted: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Its port."""
        server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                if " /v1/authorize" not in head.partition("\r\n")[0]:  # a health check
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                names = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head.split("\r\n")}
                name = names.get("x-request-id") or f"question {len(self.counted)}"
                if name not in self.counted:
                    self.counted.append(name)
                writer.write(ALLOWED if self.fault is None else self.fault)
                await writer.drain()
                if self.fault is not None:
                    break
        writer.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_counted_is_not_asked_again(
    gateway_class: type[GatewayServer], tmp_path, loop: LoopThread, fault: str
):
    if gateway_class.asks_rls:
        pytest.skip("asks over gRPC, which does not ask again by itself")
    nodes = [BreakingNode(), BreakingNode()]
    with ExitStack() as running:
        ports = []
        for node in nodes:
            serving = node.running()
            ports.append(loop.run(serving.__aenter__()))
            running.callback(lambda one=serving: loop.run(one.__aexit__(None, None, None)))
        upstream = running.enter_context(Upstream().running())
        gateway = gateway_class(
            tmp_path / "gateway", node_port=ports[0], second_port=ports[1], upstream_port=upstream.port,
            options=["two-nodes"], token=GATEWAY_TOKEN,
        )  # fmt: skip
        running.callback(gateway.child.stop)
        gateway.start()
        client = EndClient(gateway.port)
        while not all(node.counted for node in nodes):  # both are known to be sound, and connections to them are kept
            client.ask()
        for node in nodes:
            node.fault, node.counted = FAULTS[fault], []
        answer = client.ask()
        assert answer.status in gateway.closed_statuses
        assert sum(len(node.counted) for node in nodes) <= gateway.asks_at_most
        assert upstream.requests > 0
