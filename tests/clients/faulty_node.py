"""A server that fails as nodes and networks do, and counts what it was asked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

Fault = Literal[
    "hangs",
    "hangs up",
    "garbage",
    "500",
    "503",
    "401",
    "not json",
    "too few",
    "endless",
    "splits headers",
    "no number",
    "no store",
    "none",
]

DECIDED = b'{"decisions": [{"allowed": true}]}'
HELD = b'{"allowed": true, "reserved": 5, "reservation": "r"}'


class FaultyNode:
    """Each request is answered by the ``fault``."""

    def __init__(self, fault: Fault) -> None:
        self.fault: Fault = fault
        self.requests = 0
        self.connections = 0
        self.paths: list[str] = []
        self.last_body = b""
        self.url = ""
        self.open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.open.add(writer)
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                self.paths.append(head.split(b" ", 2)[1].decode())
                self.last_body = await reader.readexactly(length)
                self.requests += 1
                if not await self._answer(reader, writer):
                    break
        self.open.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        if self.fault == "hangs":
            await reader.read(1)
            return False
        if self.fault == "hangs up":
            return False
        if self.fault == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while not writer.is_closing():
                    writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                    await writer.drain()
            return False
        if self.fault == "garbage":
            writer.write(b"\x00\xff nonsense \r\n\r\n")
            return False
        batch = self.paths[-1] == "/v1/check/batch"
        body = {
            "no store": DECIDED if batch else b'{"status": 503, "error": "store_unavailable"}',
            "401": b'{"status": 401, "title": "Unauthorized"}',
            "not json": b"{",
            "too few": b'{"decisions": []}',
            "splits headers": b'{"decisions": [{"allowed": true, "limit": 1, "policy": "x\\r\\nSet-Cookie: a=b"}]}',
            "no number": b'{"decisions": [{"allowed": false, "status": 429, "retry_after_s": -1e300}]}',
        }.get(self.fault, DECIDED if batch else HELD)
        status = self.fault if self.fault.isdigit() else "503" if self.fault == "no store" and not batch else "200"
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        return True


@contextlib.asynccontextmanager
async def faulty_node(fault: Fault) -> AsyncIterator[FaultyNode]:
    """One that serves on a free port of the loopback."""
    node = FaultyNode(fault)
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        server.close()
        for writer in node.open:
            writer.close()
        await server.wait_closed()
