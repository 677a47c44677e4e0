"""Simulated nodes: each holds the real stream over a connection of its own, and ACKs over another, as nodes do."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from tidegate.contract.config import Ack, Begin, Commit, Heartbeat, StreamMessage

_decoder = msgspec.json.Decoder(StreamMessage)
BACKOFF_S = (0.5, 10.0)


class SimulatedNode:
    """Follows one stream without keeping documents. ``on_commit`` gets (revision, monotonic seconds)."""

    def __init__(
        self, address: tuple[str, int], credential: str, region: str, name: str, on_commit: Callable[[int, float], None]
    ) -> None:
        self._address = address
        self._credential = credential
        self._region, self._name = region, name
        self._on_commit = on_commit
        self._acks: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._stream: asyncio.StreamWriter | None = None
        self.revision = 0
        self.digest = ""
        self.snapshots = 0
        self.received_bytes = 0
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until cancelled; backoff with full jitter, like a node."""
        delay = BACKOFF_S[0]
        while True:
            try:
                await self._follow()
                delay = BACKOFF_S[0]
            except (OSError, EOFError, ValueError):
                delay = BACKOFF_S[0] if self.connected.is_set() else min(2 * delay, BACKOFF_S[1])
            finally:
                self.connected.clear()
                self._hang_up()
            await asyncio.sleep(random.uniform(0, delay))

    def drop(self) -> None:
        """Lose the connection, as when a network goes."""
        if self._stream is not None:
            self._stream.transport.abort()

    def _hang_up(self) -> None:
        for writer in (self._stream, self._acks[1] if self._acks else None):
            if writer is not None:
                writer.close()
        self._stream = self._acks = None

    async def _follow(self) -> None:
        reader, self._stream = await asyncio.open_connection(*self._address, limit=2**22)
        query = f"node={self._name}&region={self._region}&revision={self.revision}&digest={self.digest}"
        self._stream.write(self._head("GET", f"/internal/v1/stream?{query}"))
        status = await _status(reader)
        if status != 200:
            raise ValueError(f"the stream answered {status}")
        while size := int(await reader.readuntil(b"\r\n"), 16):
            chunk = await reader.readexactly(size + 2)
            self.received_bytes += size
            # the server writes whole lines, one a chunk
            await self._take(_decoder.decode(chunk[:-3]))

    async def _take(self, message: object) -> None:
        if isinstance(message, Commit):
            self.revision, self.digest = message.revision, message.digest
            self._on_commit(message.revision, time.monotonic())
            await self._acknowledge()
        elif isinstance(message, Begin):
            self.snapshots += message.base is None
        elif isinstance(message, Heartbeat):
            self.connected.set()

    async def _acknowledge(self) -> None:
        body = msgspec.json.encode(Ack(node=self._name, revision=self.revision, digest=self.digest))
        if self._acks is None:
            self._acks = await asyncio.open_connection(*self._address)
        reader, writer = self._acks
        writer.write(self._head("POST", "/internal/v1/acks", len(body)) + body)
        status = await _status(reader)
        if status != 204:
            raise ValueError(f"the ACK was answered {status}")

    def _head(self, method: str, path: str, length: int = 0) -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._address[0]}\r\nauthorization: Bearer {self._credential}\r\n"
        return (head + (f"content-length: {length}\r\n" if length else "") + "\r\n").encode()


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1])


async def until_all(nodes: Sequence[SimulatedNode], revision: int, timeout_s: float) -> None:
    """Wait until every node has this revision."""
    async with asyncio.timeout(timeout_s):
        while any(node.revision < revision for node in nodes):  # noqa: ASYNC110  500 events would be waited for
            await asyncio.sleep(0.01)
