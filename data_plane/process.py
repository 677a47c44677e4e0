"""What every process of a region has: the clock, background work that restarts after a fault, and TLS."""

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
import structlog
from tenacity import AsyncRetrying, RetryCallState, wait_fixed

log = structlog.get_logger()
Job = Callable[[], Coroutine[Any, Any, None]]
"""Work that never ends by itself."""
AGAIN_AFTER_S = 1.0


class SystemClock:
    """The wall clock of this machine."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1_000


async def run_forever(work: Job, again_after_s: float = AGAIN_AFTER_S) -> None:
    """Run ``work`` until it is cancelled. Restart it after any exception, which is a bug and logged as an error."""
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


@functools.cache
def tls_of(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """A TLS context with a private CA, and a client certificate (PEM; without ``key`` it holds the key too).

    Without either it is one with the public CAs. All who ask for the same share one, as reading those takes tens of
    milliseconds. Raises ``OSError`` for a file that is missing or no PEM.
    """
    if ca is None and certificate is None:
        return httpx.create_ssl_context(trust_env=False)
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
