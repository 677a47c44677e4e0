"""What an attacker may send to a port, with what it costs: memory, others' answers. Figures of all of it:

python -m tests.integration.http_front.attacks
"""

import asyncio
import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from control_plane.migration import migrate
from testing.node import key_of, rule, write_snapshot
from tests.integration.http_front.ports import ADMIN_TOKEN, Port, every_port
from tidegate.contract.config import Client, Gateway, Plan
from tidegate.contract.credentials import make_credential, secret_sha256
from tidegate.stack.child import wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.postgres import PostgresServer
from tidegate.stack.store import StoreServer

GATEWAY_TOKEN = make_credential("gateway", bytes(range(1, 33)))
CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 1_000),)),
    Client(client="acme", plan="p"),
    Client(client="victim", plan="p"),
    key_of("acme", "tg_acme"),
    Gateway(gateway="edge", sha256=secret_sha256(GATEWAY_TOKEN)),
]
PIPELINED = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


class Cost(NamedTuple):
    """Resident memory before, at most, and some seconds after; the longest that others waited for an answer."""

    before_mib: float
    most_mib: float
    after_mib: float
    longest_wait_s: float

    def __str__(self) -> str:
        return (
            f"{self.before_mib:.0f} -> {self.most_mib:.0f} -> {self.after_mib:.0f} MiB, "
            f"longest wait of another client {self.longest_wait_s:.2f} s"
        )


def _watch(port: Port, path: bytes, stop: threading.Event, waits: list[float], sizes: list[float]) -> None:
    """Ask ``path`` over and over on one connection; note how long each answer took, and the process's memory."""
    request = b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    while not stop.is_set():
        # a port with as many connections as it may have ends this one: connect again
        with contextlib.suppress(OSError), port.connect(60) as connection:
            answered = True
            while answered and not stop.is_set():
                began = time.monotonic()
                try:
                    connection.sendall(request)
                    answered = bool(connection.recv(65536))
                finally:
                    waits.append(time.monotonic() - began)
                    sizes.append(port.rss_mib())
                stop.wait(0.01)


def measured(port: Port, attack: Callable[[Port], None], *, path: bytes = b"/healthz", rest_s: float = 3.0) -> Cost:
    """Attack, and see what that costs a client that asks for ``path`` meanwhile."""
    before, stop = port.rss_mib(), threading.Event()
    waits: list[float] = []
    sizes: list[float] = []
    watcher = threading.Thread(target=_watch, args=(port, path, stop, waits, sizes))
    watcher.start()
    attack(port)
    stop.wait(rest_s)
    stop.set()
    watcher.join()
    return Cost(before, max(sizes, default=before), port.rss_mib(), max(waits, default=0.0))


@contextlib.contextmanager
def _connections(port: Port, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(port.connect()) for _ in range(count)]


def pipelined(count: int, size: int = 560_000, during_s: float = 8.0) -> Callable[[Port], None]:
    """Send ``size`` bytes of requests on each of ``count`` connections, as fast as they are taken, and read nothing."""

    async def send_one(port: Port, until_s: float) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port.number, limit=2**30)
        try:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout_at(until_s):
                    writer.write(PIPELINED * (size // len(PIPELINED)))
                    await writer.drain()
                    await asyncio.sleep(during_s)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send_all(port: Port) -> None:
        until_s = asyncio.get_running_loop().time() + during_s
        await asyncio.gather(*(send_one(port, until_s) for _ in range(count)))

    return lambda port: asyncio.run(send_all(port))


def header_lines(mib: int = 40) -> Callable[[Port], None]:
    """Send a head that does not end."""

    def attack(port: Port) -> None:
        with port.connect(60) as connection, contextlib.suppress(OSError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
            lines = b"X-Line: 0123456789\r\n" * (2**20 // 20)
            for _ in range(mib):
                connection.sendall(lines)

    return attack


def answered_beside_half_heads(port: Port, count: int = 320, patience_s: float = 30.0) -> float | None:
    """Open ``count`` connections with half a head each; how long a client then waits for an answer, if it gets one."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = stack.enter_context(port.connect(5))
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        began = time.monotonic()
        while time.monotonic() - began < patience_s:
            if port.answers():
                return time.monotonic() - began
        return None


def status_of(port: Port, request: bytes) -> int:
    """The status of the last answer to ``request``, which closes its connection."""
    with port.connect() as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
    return int(received.rpartition(b"HTTP/1.1 ")[2][:3])


def with_trailers(line: bytes, trailers: dict[str, str], *fields: bytes, first: bytes = b"") -> bytes:
    """A chunked request with an empty body and ``trailers``, after ``first``."""
    head = b"\r\n".join([line, b"Host: a", b"Transfer-Encoding: chunked", b"Connection: close", *fields])
    sent = "".join(f"{name}: {value}\r\n" for name, value in trailers.items()).encode()
    return first + head + b"\r\n\r\n0\r\n" + sent + b"\r\n"


def authorization_as_trailer() -> bytes:
    """A request that is an admin's by its trailer only."""
    return with_trailers(b"POST /v1/plans HTTP/1.1", {"Authorization": f"Bearer {ADMIN_TOKEN}"})


@contextlib.contextmanager
def servers(directory: Path) -> Iterator[tuple[str, str]]:
    """A store and a migrated database."""
    store = StoreServer(directory / "store", port=free_ports(1)[0], password="store", log_path=directory / "store.log")
    database = PostgresServer(
        directory / "pg", port=free_ports(1)[0], password="pg", log_path=directory / "pg.log", durable=False
    )
    try:
        for server in (store, database):
            server.prepare()
            server.child.start()
            wait_until_ready(server.child, server.is_ready, timeout_s=60)
        database.execute('CREATE DATABASE "attacked"')
        migrate(database.url("attacked"))
        yield store.url, database.url("attacked")
    finally:
        store.child.stop()
        database.child.stop()


def say(line: str) -> None:
    """Print a figure as soon as it is known."""
    print(line, flush=True)  # noqa: T201 - that is what the command is for


def main() -> None:
    """All attacks on all ports, each on fresh processes."""
    with tempfile.TemporaryDirectory(prefix="tidegate-attacks-") as name:
        directory = Path(name)
        snapshot = directory / "snapshot"
        asyncio.run(write_snapshot(snapshot, CONFIG))
        with servers(directory) as (store_url, database_url):
            attacks = {
                "10 pipelines": pipelined(10),
                "60 pipelines": pipelined(60),
                "40 MiB of header lines": header_lines(),
            }
            for attack_name, attack in attacks.items():
                for port_name in ("node", "health", "control plane"):
                    with every_port(directory, snapshot, store_url, database_url) as ports:
                        path = b"/v1/authorize" if port_name == "node" else b"/healthz"
                        say(f"{attack_name}, {port_name}: {measured(ports[port_name], attack, path=path)}")
            for port_name in ("node", "health", "control plane"):
                with every_port(directory, snapshot, store_url, database_url, descriptors=300) as ports:
                    waited = answered_beside_half_heads(ports[port_name])
                    said = "no answer in 30 s" if waited is None else f"answered in {waited:.2f} s"
                    say(f"320 half heads at 300 descriptors, {port_name}: {said}")
            with every_port(directory, snapshot, store_url, database_url) as ports:
                status = status_of(ports["control plane"], authorization_as_trailer())
                say(f"Authorization as a trailer, control plane: {status}")


if __name__ == "__main__":
    main()
