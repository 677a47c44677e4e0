"""Answers of one turn of the event loop, sent together."""

import asyncio

_MAX_BYTES = 64 * 1024


class Outbox:
    """Answers of one turn of the event loop, sent back to back. Who writes past it or closes a transport flushes it.

    A write wakes whoever waits for it. Sent one by one between decisions, each answer would wake a client that drains
    it and sleeps again; sent together they cost a tenth less of the node's time.
    """

    def __init__(self) -> None:
        self._writes: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._bytes = 0

    def put(self, loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Send ``data`` at the end of this turn, or now when too much is waiting: a transport's own backpressure only
        begins with what it was given.
        """
        writes = self._writes
        writes.append((transport, data))
        self._bytes += len(data)
        if self._bytes > _MAX_BYTES:
            self.flush()
        elif len(writes) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send everything now."""
        writes, self._writes, self._bytes = self._writes, [], 0
        for transport, data in writes:
            if not transport.is_closing():
                transport.write(data)
