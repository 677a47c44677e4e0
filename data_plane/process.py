"""What every process of a region has: the clock, background work that restarts after a fault, TLS, an HTTP client."""

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import certifi
import msgspec
import structlog
from tenacity import AsyncRetrying, RetryCallState, wait_fixed

from tidegate.contract.decoding import UNREADABLE

log = structlog.get_logger()
Job = Callable[[], Coroutine[Any, Any, None]]
"""Background work: it runs until it is cancelled, or returns when nothing is left to do."""
AGAIN_AFTER_S = 1.0
RENEWED_WITHIN_S = 5.0
"""How long a renewed certificate may wait until it is used."""
HTTP_ERRORS = (aiohttp.ClientError, TimeoutError, ValueError)
"""What a request without an answer raises; some URLs that are none are a ``ValueError``."""


class SystemClock:
    """The wall clock of this machine."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1_000


async def run_forever(work: Job, again_after_s: float = AGAIN_AFTER_S) -> None:
    """Run ``work`` until it returns or is cancelled. Restart it after any exception: a bug, logged as an error."""
    await AsyncRetrying(wait=wait_fixed(again_after_s), before_sleep=_died)(work)


def _died(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.error("background_work_died", work=getattr(state.fn, "__qualname__", repr(state.fn)), exc_info=error)


@contextlib.asynccontextmanager
async def working(
    start: Callable[[], Awaitable[None]], jobs: Sequence[Job], ends: Sequence[Callable[[], Awaitable[None]]]
) -> AsyncIterator[None]:
    """Start, and run ``jobs`` between enter and exit; then await ``ends`` one after the other."""
    tasks: list[asyncio.Task[None]] = []
    try:
        await start()
        tasks += [asyncio.create_task(run_forever(job)) for job in jobs]
        yield
    finally:
        await cancelled(tasks)
        for end in ends:
            await end()


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end, as ``wait_for`` of Python 3.11 can swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)


class TlsFiles(NamedTuple):
    """PEM files: a certificate, its key unless it is in the same file, and the CA of whoever is on the other side."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    def load(self, context: ssl.SSLContext) -> None:
        """Load them for connections that begin from now on. Raises ``OSError`` for a file that is missing or no PEM."""
        self._load_pair(context)
        self._load_ca(context)

    async def keep_loaded(self, context: ssl.SSLContext) -> None:
        """Load them again whenever one changes; return at once if none is set.

        Files that cannot be loaded change nothing. A new CA is trusted beside the one before it.
        """
        loaded = self._state()
        while any(self):
            await asyncio.sleep(RENEWED_WITHIN_S)
            if (found := self._state()) == loaded:
                continue
            loaded = found
            try:
                # half a pair would spoil the context that is in use
                await asyncio.to_thread(self.load, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
                # on the loop: a connection that begins meanwhile would read a pair that is being changed
                self._load_pair(context)
                await asyncio.to_thread(self._load_ca, context)  # a bundle takes tens of milliseconds
            except OSError as error:
                log.error("certificate_not_renewed", file=str(self.certificate or self.ca), error=str(error))
            else:
                log.info("certificate_renewed", file=str(self.certificate or self.ca))

    def _load_pair(self, context: ssl.SSLContext) -> None:
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key, password="")

    def _load_ca(self, context: ssl.SSLContext) -> None:
        if self.ca is not None:
            context.load_verify_locations(self.ca)

    def _state(self) -> Sequence[tuple[int, int, int] | None]:
        found = []
        for path in self:
            try:
                stat = None if path is None else path.stat()
            except OSError:
                stat = None
            found.append(stat and (stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return found


@functools.cache
def tls_of(files: TlsFiles) -> ssl.SSLContext:
    """A client's TLS context; without a file it is one with the public CAs, as certifi lists them.

    All who ask for the same share one, as reading those takes tens of milliseconds. Raises ``OSError`` for a file that
    is missing or no PEM.
    """
    if not any(files):
        return ssl.create_default_context(cafile=certifi.where())
    context = ssl.create_default_context(cafile=files.ca)
    files.load(context)
    return context


class ControlPlaneUnavailableError(Exception):
    """The control plane gave no answer, or refused a message for now."""


@contextlib.contextmanager
def control_plane_errors() -> Iterator[None]:
    """Raise ``ControlPlaneUnavailableError`` for a request without an answer, and for an answer that is unreadable."""
    try:
        yield
    except (*HTTP_ERRORS, *UNREADABLE) as error:
        raise ControlPlaneUnavailableError(f"{type(error).__name__}: {error}") from error


class HttpStatusError(aiohttp.ClientError):
    """A request was answered by a status that is not one of success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answered {status}")
        self.status = status


async def bounded_body(response: aiohttp.ClientResponse, most_bytes: int) -> bytes | None:
    """The body of an answer; ``None`` if it is longer, what follows unread. Raises ``HTTP_ERRORS``."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            return None
    return bytes(body)


class HttpClient:
    """Pooled connections, without redirects, cookies and proxies of the environment. Requests raise ``HTTP_ERRORS``.

    Only ``total`` of a timeout bounds the sending of a body. Without ``tls`` servers need certificates of a public CA.
    """

    def __init__(
        self, timeout: aiohttp.ClientTimeout, tls: ssl.SSLContext | None = None, url: str = "", credential: str = ""
    ) -> None:
        self._timeout = timeout
        self._tls = tls_of(TlsFiles()) if tls is None else tls
        self._url = url.rstrip("/")
        self._headers = {"accept-encoding": "identity"}
        if credential:
            self._headers["authorization"] = f"Bearer {credential}"

    def request(
        self, method: str, path: str, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """An answer of any status, its body yet to be read. ``path`` follows the client's URL."""
        return self._session.request(method, self._url + path, allow_redirects=False, **options)

    async def ask(self, method: str, path: str, **options: Any) -> bytes:
        """The body of an answer. Raises ``HttpStatusError`` unless its status is one of success."""
        async with self.request(method, path, **options) as response:
            if not 200 <= response.status < 300:
                raise HttpStatusError(response.status)
            return await response.read()

    async def close(self) -> None:
        """Close the connections."""
        if "_session" in vars(self):
            await self._session.close()

    @functools.cached_property
    def _session(self) -> aiohttp.ClientSession:
        """Made by the first request: who never runs has none to close."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, keepalive_timeout=5.0), timeout=self._timeout,
            headers=self._headers, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            json_serialize=lambda value: msgspec.json.encode(value).decode(),
        )  # fmt: skip
