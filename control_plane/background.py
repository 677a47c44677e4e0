"""Background work of the control plane that restarts after a fault."""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, wait_fixed

_log = structlog.stdlib.get_logger("tidegate.control_plane")
AGAIN_AFTER_S = 1.0


async def run_forever(work: Callable[[], Coroutine[Any, Any, None]], again_after_s: float = AGAIN_AFTER_S) -> None:
    """Run ``work`` until it is cancelled. Restart it after any exception, which is a bug and logged as an error."""
    await AsyncRetrying(wait=wait_fixed(again_after_s), before_sleep=_died)(work)


def _died(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    _log.error("background_work_died", work=getattr(state.fn, "__qualname__", repr(state.fn)), exc_info=error)
