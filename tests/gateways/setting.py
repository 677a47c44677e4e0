"""What gateway tests stand on: nodes on a real Valkey behind a proxy that can fail, an upstream, end clients."""

import asyncio
import contextlib
import http.client
import itertools
import json
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data_plane.node import Node
from testing.gateway import GatewayServer
from testing.node import GATEWAY_TOKEN, key_of, rule, serving, settings_for, write_snapshot
from testing.proxy import Proxy
from testing.upstream import Upstream
from tidegate.contract.config import Client, Endpoint, Gateway, Plan
from tidegate.contract.credentials import secret_sha256
from tidegate.stack.ports import LOOPBACK, free_ports

T = TypeVar("T")
PATIENCE_S = 20.0
QUIET_S = 0.2
LIMIT, ADDRESS_LIMIT, EXPORT_COST = 5, 3, 4
CLIENTS = 2_000
SUSPENDED = "tg_suspended"


def configuration(dialect: str) -> list[object]:
    """Clients ``c0``, ``c1`` ... with keys ``tg_c0`` ... and five an hour; three an hour by address without a key."""
    clients = [Client(client=f"c{nth}", plan="few") for nth in range(CLIENTS)]
    return [
        Plan(plan="few", limits=(rule(1, "hourly", LIMIT),)),
        Plan(plan="many", limits=(rule(3, "hourly", 100_000),)),
        Plan(plan="anonymous", limits=(rule(2, "per-ip", ADDRESS_LIMIT, scope="ip"),)),
        Endpoint(endpoint="get-user", method="GET", path="/api/users/{id}"),
        Endpoint(endpoint="export", method="POST", path="/api/exports", cost=EXPORT_COST),
        Endpoint(endpoint="health", method="GET", path="/health", exempt=True),
        Gateway(gateway="edge", sha256=secret_sha256(GATEWAY_TOKEN), dialect=dialect),
        *clients,
        *(key_of(one.client, f"tg_{one.client}") for one in clients),
        Client(client="rich", plan="many"),
        key_of("rich", "tg_rich"),
        Client(client="gone", plan="few", status="suspended"),
        key_of("gone", SUSPENDED),
    ]


class LoopThread:
    """An event loop in a thread of its own, so that tests stay plain while nodes and proxies serve them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nodes")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        """End the loop; nothing may run on it any more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


@dataclass
class Answer:
    """What an end client got; header names are in lower case."""

    status: int
    header_list: list[tuple[str, str]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The headers, of which each must have come once."""
        names = [name for name, _ in self.header_list]
        twice = {name for name in names if names.count(name) > 1}
        assert not twice, f"headers came twice: {self.header_list}"
        return dict(self.header_list)

    def json(self) -> dict[str, Any]:
        told = json.loads(self.body)
        assert isinstance(told, dict)
        return told


def status_of(answer: bytes) -> int:
    """The status of the last answer in raw bytes (there may be a 100 before it); 0 where there is none."""
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    return int(lines[-1].split(b" ")[1]) if lines else 0


@dataclass
class EndClient:
    """Asks a gateway from an address of its own (all of 127.0.0.0/8 is this machine), with no manners of a library."""

    port: int
    address: str = LOOPBACK

    def ask(
        self, path: str = "/api/users/1", *, method: str = "GET", key: str | None = None,
        headers: Sequence[tuple[str, str]] = (), body: bytes | None = None,
    ) -> Answer:  # fmt: skip
        """One request on a connection of its own; header lines go out as they are, twice if twice given."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, PATIENCE_S, source_address=(self.address, 0))
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in [*([("X-API-Key", key)] if key else []), *headers]:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            lines = [(name.lower(), value) for name, value in response.getheaders()]
            return Answer(response.status, lines, response.read())
        finally:
            connection.close()

    def send(self, request: bytes) -> int:
        """Raw bytes, as no library would send them; the status of the answer, 0 for none."""
        with socket.create_connection(
            (LOOPBACK, self.port), PATIENCE_S, source_address=(self.address, 0)
        ) as connection:
            connection.sendall(request)
            answer = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                while chunk := connection.recv(65_536):
                    answer += chunk
                    connection.settimeout(QUIET_S)  # some keep the connection open after their answer
            return status_of(answer)


class BrokenNode:
    """Answers every connection with ``answer`` and closes it."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Its port."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, LOOPBACK, 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


@dataclass
class Site:
    """A gateway in front of an upstream, asking a node by way of ``proxy``."""

    gateway: GatewayServer
    upstream: Upstream
    proxy: Proxy
    loop: LoopThread

    def key(self) -> str:
        """The key of a client that has asked nothing yet."""
        return f"tg_c{fresh_number()}"

    def visitor(self) -> EndClient:
        """An end client at an address that has asked nothing yet."""
        number = fresh_number()
        return EndClient(self.gateway.port, f"127.1.{number // 250}.{number % 250 + 1}")

    def exhausted(self) -> str:
        """The key of a client that has used its limit up."""
        key, visitor = self.key(), self.visitor()
        for _ in range(LIMIT):
            assert visitor.ask(key=key).status == 200
        return key

    @contextlib.contextmanager
    def node_is(self, fault: str) -> Iterator[None]:
        """Let the node be ``gone`` (connections refused), ``silent`` (accepted, never answered) or ``broken`` (500)."""
        if fault == "gone":
            self.loop.run(self.proxy.cut())
        elif fault == "silent":
            self.proxy.silent = True
        try:
            if fault == "broken":
                with self._redirected():
                    yield
            else:
                yield
        finally:
            # What was dropped is lost: connections that wait for it must end, as they do when a network comes back.
            self.loop.run(self.proxy.cut())
            self.loop.run(self.proxy.heal())

    @contextlib.contextmanager
    def _redirected(self) -> Iterator[None]:
        broken = BrokenNode(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops")
        serving_broken = broken.running()
        port = self.loop.run(serving_broken.__aenter__())
        before, self.proxy.target = self.proxy.target, (LOOPBACK, port)
        self.loop.run(self.proxy.cut())  # connections to the sound node are gone with it
        self.loop.run(self.proxy.heal())
        try:
            yield
        finally:
            self.proxy.target = before
            self.loop.run(serving_broken.__aexit__(None, None, None))


_fresh = itertools.count()


def fresh_number() -> int:
    """A number that no test has used; clients and addresses are named by it."""
    return next(_fresh)


@contextlib.contextmanager
def open_site(
    gateway_class: type[GatewayServer], directory: Path, valkey_url: str, loop: LoopThread, *,
    options: Sequence[str] = (), token: str = "", trusted_hops: int = 1,
) -> Iterator[Site]:  # fmt: skip
    """Start a node as this gateway needs it, an upstream and the gateway between them; stop all at the end."""
    with contextlib.ExitStack() as running:

        def enter(manager: contextlib.AbstractAsyncContextManager[T]) -> T:
            entered = loop.run(manager.__aenter__())
            running.callback(lambda: loop.run(manager.__aexit__(None, None, None)))
            return entered

        snapshot = directory / "snapshot"
        rls_port = free_ports(1)[0] if gateway_class.asks_rls else None
        settings = settings_for(
            snapshot, valkey_url, rls_port=rls_port, redis_deadline_ms=200,  # a busy machine is not what is tested
            trust="required" if token else "network",
            dialect="envoy" if token else gateway_class.dialect, trusted_hops=trusted_hops,
        )  # fmt: skip

        async def make_node() -> Node:
            await write_snapshot(snapshot, configuration(gateway_class.dialect))
            return Node(settings)

        url = enter(serving(loop.run(make_node())))
        proxy = enter(Proxy(rls_port or int(url.rpartition(":")[2])).running())
        upstream = running.enter_context(Upstream().running())
        gateway = gateway_class(
            directory / gateway_class.name, node_port=proxy.port, upstream_port=upstream.port,
            options=options, token=token,
        )  # fmt: skip
        running.callback(gateway.child.stop)
        gateway.start()
        yield Site(gateway, upstream, proxy, loop)
