"""The port of Envoy's rate limit service: HTTP/2 with prior knowledge, or over TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

import structlog

from data_plane.process import TlsFiles, cancelled
from data_plane.rls.frames import Http2Limits
from data_plane.rls.http2 import Handler
from data_plane.rls.protocol import RlsProtocol

log = structlog.get_logger()
MAX_CONNECTIONS = 1_024
STOP_S = 5.0
KNOWS_S = 1.0
"""How long a client has to acknowledge the drain."""
TICK_S = 0.25
# Common ciphers that HTTP/2 allows (RFC 9113, appendix A); all of TLS 1.3 are allowed.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class RlsServer:
    """The connections of one port. ``is_draining`` tells when clients should go elsewhere."""

    def __init__(self, handler: Handler, limits: Http2Limits, is_draining: Callable[[], bool]) -> None:
        self.handler = handler
        self.limits = limits
        self.connections: set[RlsProtocol] = set()
        self._is_draining = is_draining
        self._is_closing = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None

    def admits(self, connection: RlsProtocol) -> bool:
        """Whether there is room for a connection; if so, it is counted."""
        if self._is_closing or len(self.connections) >= MAX_CONNECTIONS:
            return False
        self.connections.add(connection)
        self._empty.clear()
        return True

    def left(self, connection: RlsProtocol) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def start(self) -> None:
        """Start the timer that checks connections."""
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def stop(self) -> None:
        """Answer what is in flight, and end every connection within ``STOP_S``."""
        self._is_closing = True
        for patience_s in (KNOWS_S, STOP_S - KNOWS_S):
            for connection in list(self.connections):
                connection.finish()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._empty.wait()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._ticks += 1
        if self._is_draining():  # also connections opened meanwhile
            for connection in list(self.connections):
                connection.drain()
        if self._ticks * TICK_S >= self.limits.stall_s:
            self._ticks = 0
            for connection in list(self.connections):
                connection.end_stalled()


@contextlib.asynccontextmanager
async def serving_rls(
    handler: Handler,
    host: str,
    port: int,
    tls: TlsFiles | None,
    *,
    is_draining: Callable[[], bool] = lambda: False,
) -> AsyncIterator[int]:
    """Serve until the block ends and requests in flight are answered. Yields the port (0 takes a free one)."""
    server = RlsServer(handler, Http2Limits(), is_draining)
    context = None if tls is None else _context(tls)
    listening = await asyncio.get_running_loop().create_server(
        lambda: RlsProtocol(server), host, port, backlog=2_048, ssl=context
    )
    renewal = () if tls is None or context is None else (asyncio.create_task(tls.keep_loaded(context)),)
    bound: int = listening.sockets[0].getsockname()[1]
    server.start()
    log.info("rate_limit_service", port=bound, tls=tls is not None)
    try:
        yield bound
    finally:
        listening.close()
        await server.stop()
        await cancelled(renewal)


def _context(tls: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2"])
    tls.load(context)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
