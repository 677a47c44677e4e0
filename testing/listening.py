"""Servers in the test's own process: they leave signals to pytest, and stop without losing a connection on the way."""

import asyncio
import contextlib
from collections.abc import Generator

import uvicorn


class ServerBesidePytest(uvicorn.Server):
    """uvicorn, but signals are left to whoever takes them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take none."""
        yield


async def stop_accepting(server: asyncio.Server) -> None:
    """Let ``server`` take what it has accepted, and nothing more; ``server.close()`` is safe after it.

    asyncio builds a connection's transport one turn of the loop after it accepted it. When the server is closed in
    between, the transport fails half built, nobody closes it, and the collector finds it in whatever test comes later.
    """
    for listener in server.sockets:
        server.get_loop().remove_reader(listener.fileno())
    await asyncio.sleep(0)
