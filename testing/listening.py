"""Servers in the test's own process: they leave signals to pytest, and stop without losing a connection on the way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator

import uvicorn

START_S = 10.0


class ServerBesidePytest(uvicorn.Server):
    """uvicorn, but signals are left to whoever takes them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take none."""
        yield


@contextlib.asynccontextmanager
async def listening(config: uvicorn.Config) -> AsyncIterator[str]:
    """The base URL of what uvicorn serves by ``config``, in this loop, until the block ends."""
    server = ServerBesidePytest(config)
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(START_S):
            while not server.started:
                if task.done():
                    task.result()
                await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        for listener in server.servers:
            await stop_accepting(listener)
        server.should_exit = True
        await task


async def stop_accepting(server: asyncio.Server) -> None:
    """Let ``server`` take what it has accepted, and nothing more; ``server.close()`` is safe after it.

    asyncio builds a connection's transport one turn of the loop after it accepted it. When the server is closed in
    between, the transport fails half built, nobody closes it, and the collector finds it in whatever test comes later.
    """
    for listener in server.sockets:
        server.get_loop().remove_reader(listener.fileno())
    await asyncio.sleep(0)
