"""A relay in front of a node that fails as networks and nodes do, as long as it is told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from tidegate.stack.ports import LOOPBACK

CHUNK_BYTES = 64 * 1024
FAULTS: Final = ("sound", "hangs", "sound", "hangs up", "sound", "nonsense", "sound", "500")
"""What a soak goes through, in turn."""
_ANSWERS: Final = {
    "hangs up": b"",
    "nonsense": b"\x00\xff nonsense\r\n\r\n",
    "500": b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
}


class Relay:
    """Forwards to ``port`` while ``fault`` is ``sound``; else what is asked gets no answer, or none of a node's."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.fault = "sound"
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        """Listen until the block ends."""
        server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.url = f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._port)
            answers = asyncio.create_task(_pump(far_reader, writer))
            while chunk := await reader.read(CHUNK_BYTES):
                if self.fault == "sound":
                    far_writer.write(chunk)
                elif self.fault != "hangs":
                    writer.write(_ANSWERS[self.fault])
                    break
            answers.cancel()
            far_writer.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
        writer.close()
