"""Background work of a node or an agent, which a fault must not end for good."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, wait_fixed

log = structlog.get_logger()
AGAIN_AFTER_S = 1.0


async def run_forever(work: Callable[[], Coroutine[Any, Any, None]], again_after_s: float = AGAIN_AFTER_S) -> None:
    """Run ``work`` until it is cancelled. What ends it otherwise is a bug: it is loud, and the work begins anew."""
    await AsyncRetrying(wait=wait_fixed(again_after_s), before_sleep=_died)(work)


def _died(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.error("background_work_died", work=getattr(state.fn, "__qualname__", repr(state.fn)), exc_info=error)


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """End background work. Asked again until it ends: ``wait_for`` of Python 3.11 can swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
