"""An asyncio protocol: passes bytes between a transport and ``Http2Connection``, with one write a loop turn."""

import asyncio
from typing import TYPE_CHECKING, cast

from data_plane.rls.http2 import Http2Connection

if TYPE_CHECKING:
    from data_plane.rls.server import RlsServer


class RlsProtocol(asyncio.Protocol):
    """Answers of one turn of the loop go out in one write."""

    def __init__(self, server: "RlsServer") -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_paused = self._was_paused = self._was_ended = False
        self.connection = Http2Connection(server.handler, server.limits, self._wake)
        self.data_received = self.connection.receive  # type: ignore[method-assign]  # saves a call for each read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many connections."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.admits(self):
            self.connection.lost()
            self._transport.abort()
            return
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; late answers are ignored."""
        del exc
        self.connection.lost()
        self._server.left(self)

    def pause_writing(self) -> None:
        """The client reads too slowly: stop reading its requests."""
        self._is_paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._is_paused = self._was_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def end_stalled(self) -> None:
        """End what made no progress since the last call."""
        if self._was_ended or self._was_paused:
            self.abort()
            return
        self._was_paused = self._is_paused
        self._was_ended = self.connection.ended
        self.connection.end_stalled()

    def drain(self) -> None:
        """Ask the client to send further requests elsewhere."""
        self.connection.drain()

    def finish(self) -> None:
        """Answer what is in flight, and close."""
        self.connection.finish()
        self.flush()

    def abort(self) -> None:
        """Close at once."""
        self.connection.lost()
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what the connection has to send."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        data = self.connection.take()
        if data:
            transport.write(data)
        if self.connection.ended:
            # If the client still sends, the kernel answers by a reset, which may overtake the last frames.
            if not transport.can_write_eof():
                transport.close()
                return
            try:
                transport.write_eof()
            except OSError:  # the client is gone already
                transport.abort()
