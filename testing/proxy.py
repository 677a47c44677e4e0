"""A TCP proxy that can be slow, cut its connections, or refuse new ones, like the network between two regions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from testing.listening import stop_accepting

CHUNK_BYTES = 64 * 1024


class Proxy:
    """Forwards 127.0.0.1:``port`` to ``target``; the switches may be turned while connections are open.

    ``delay_s`` holds every chunk that long, each way, in order and without limiting throughput. ``cut()`` resets all
    connections and refuses new ones until ``heal()``. ``silent`` keeps connections open but lets nothing through, as a
    network does that drops packets.
    """

    def __init__(self, target_port: int, *, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.silent = False
        self.port = 0
        self.accepted = 0
        self.target = ("127.0.0.1", target_port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where to reach it by HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Proxy"]:
        """Listen on ``port`` (0: any) until the block ends."""
        self.port = port
        await self.heal()
        try:
            yield self
        finally:
            await self.cut()

    async def heal(self) -> None:
        """Accept connections (again), on the same port as before."""
        self.silent = False
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            await stop_accepting(server)
            server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it got in while the proxy was being cut
            writer.transport.abort()
            return
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Cancelled by cut() only: the task is ours, and asyncio would log a cancelled handler as an error.
            pass
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self.target)
        try:
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(self._pump(reader, far_writer))
                both_ways.create_task(self._pump(far_reader, writer))
        except* OSError:
            pass
        finally:
            far_writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Read on while earlier chunks wait out their delay, so that delay does not become bandwidth."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, chunk = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not chunk:
                    if sink.can_write_eof():
                        sink.write_eof()
                    return
                if not self.silent:
                    sink.write(chunk)
                    await sink.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(deliver())
            while chunk := await source.read(CHUNK_BYTES):
                queue.put_nowait((loop.time() + self.delay_s, chunk))
            queue.put_nowait((loop.time() + self.delay_s, b""))
