"""Just enough HTTP/1.1 to post to a node and read its answer: one request at a time on a connection that stays open.

General HTTP clients spend several times the node's own time on a request (see `docs/benchmarks.md`); parsing is
llhttp's, by httptools.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Self, cast
from urllib.parse import urlsplit

import httptools

MOST_ANSWER_BYTES = 4 * 1024 * 1024
MOST_CONNECTIONS = 32
# Shorter than a node's own keep-alive (75 s): a connection is not used in the moment in which the node closes it.
IDLE_S = 30.0


class NotSentError(Exception):
    """The request never left: it may be sent elsewhere."""


class BrokenError(Exception):
    """The request left, and no whole answer came: it may have counted."""


class _Connection(asyncio.Protocol):
    """One connection; ``answer`` is set while a request is on its way."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._size = 0
        self._whole = self._stays = False
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.usable = True
        self.idle_since = now()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone; whoever waits is told."""
        self._fail(BrokenError(str(exc) if exc is not None else "the node hung up"))

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._size += len(data)
        if self._size > MOST_ANSWER_BYTES:
            self._fail(BrokenError("the answer is too long"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenError(f"not HTTP: {error}"))
            return
        if self._whole:
            self._answered()

    def on_headers_complete(self) -> None:
        """Called by the parser; afterwards it no longer knows."""
        self._stays = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._whole = True

    async def post(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; status and body of its answer. Raises ``NotSentError`` or ``BrokenError``."""
        if self._transport is None or self._transport.is_closing():
            raise NotSentError("the connection is closed")
        self.answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self.answer
        finally:
            self.answer = None
            if not self._whole:  # given up: what comes later would be taken for the next answer
                self.close()
            self._whole = False

    def close(self) -> None:
        """Close at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _answered(self) -> None:
        if self.answer is None or self.answer.done():  # nobody asked
            self.close()
            return
        body = b"".join(self._chunks)
        self.usable = self._stays
        self.answer.set_result((self._parser.get_status_code(), body))
        self._chunks, self._size = [], 0
        self._parser = httptools.HttpResponseParser(self)
        self.idle_since = self._now()

    def _fail(self, error: BrokenError) -> None:
        self.close()
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)


class Origin:
    """One node's connections. ``url`` is ``http://host:port`` or ``https://...``; one is made within ``connect_s``."""

    def __init__(
        self, url: str, headers: dict[str, str], tls: ssl.SSLContext | None, now: Callable[[], float], connect_s: float
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.hostname is None:
            raise ValueError(f"urls: {url!r} is not http://host:port")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        lines = {"host": parts.netloc.rpartition("@")[2], "content-type": "application/json", **headers}
        self._head = "".join(f"{name}: {_safe(value)}\r\n" for name, value in lines.items())
        self._now = now
        self._connect_s = connect_s
        self.forget()

    def forget(self) -> None:
        """Begin without connections; those on their way do not come back here."""
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body. Raises ``NotSentError`` or ``BrokenError``."""
        head = f"POST {self._path}{path} HTTP/1.1\r\n{self._head}content-length: {len(body)}\r\n\r\n"
        idle = self._idle
        async with self._slots:
            connection = await self._connected()
            try:
                return await connection.post(head.encode("latin-1") + body)
            finally:
                if connection.usable:
                    idle.append(connection)
                else:
                    connection.close()

    async def aclose(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    async def _connected(self) -> _Connection:
        oldest = self._now() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(self._connect_s):
                _, made = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._now), self._host, self._port, ssl=self._tls
                )
        except (OSError, UnicodeError) as error:  # a TimeoutError is the one, what names no host the other
            raise NotSentError(str(error) or "no connection in time") from error
        return made

    async def __aenter__(self) -> Self:
        """Ready at once."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()


def _safe(value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        raise ValueError("token: must not hold line breaks")
    return value
