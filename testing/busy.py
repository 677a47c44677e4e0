"""A backend with few workers and a short queue, in a process of its own, which reports how busy it is.

``python -m testing.busy PORT WORKERS SERVICE_MS QUEUE NODE_URL BACKEND CREDENTIAL...``: answers 200 after a turn
in the queue and SERVICE_MS, or 503 at once when the queue is full. Each credential reports four times a second.
"""

import asyncio
import contextlib
import json
import sys
import time
import urllib.request
from typing import NamedTuple

REPORT_EVERY_S = 0.25


class Options(NamedTuple):
    """What the command line says."""

    port: int
    workers: int
    service_s: float
    queue: int
    node_url: str
    backend: str
    credentials: list[str]


class BusyBackend:
    """Counts who waits and how long the workers worked."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._workers = asyncio.Semaphore(options.workers)
        self._waiting = 0
        self._busy_s = 0.0

    async def serve(self) -> None:
        """Until it is stopped."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._options.port)
        async with server:
            await asyncio.gather(server.serve_forever(), self._report())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                status = await self._work()
                writer.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        writer.close()

    async def _work(self) -> bytes:
        if self._waiting >= self._options.queue:
            return b"503 Service Unavailable"
        self._waiting += 1
        await self._workers.acquire()
        self._waiting -= 1
        try:
            await asyncio.sleep(self._options.service_s)
            self._busy_s += self._options.service_s
        finally:
            self._workers.release()
        return b"200 OK"

    async def _report(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            now = time.monotonic()
            cpu = min(1.0, self._busy_s / self._options.workers / (now - last))
            self._busy_s, last = 0.0, now
            delay_ms = self._waiting * self._options.service_s / self._options.workers * 1_000
            body = json.dumps({"backend": self._options.backend, "cpu": cpu, "queue_delay_ms": delay_ms}).encode()
            for credential in self._options.credentials:
                await asyncio.to_thread(self._post, body, credential)

    def _post(self, body: bytes, credential: str) -> None:
        request = urllib.request.Request(
            f"{self._options.node_url}/v1/load", body, {"X-Tidegate-Token": credential}, method="POST"
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=1):
            pass


if __name__ == "__main__":
    words = sys.argv[1:]
    found = Options(
        int(words[0]), int(words[1]), float(words[2]) / 1_000, int(words[3]), words[4], words[5], words[6:]
    )  # fmt: skip
    asyncio.run(BusyBackend(found).serve())
