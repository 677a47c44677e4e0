"""How long a request may take: what its caller prefers, and work that ends when its caller hangs up.

``Prefer`` (RFC 7240) has two members here: ``wait=5`` and ``rollout=immediate``.
"""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from control_plane.errors import UnavailableError

MAX_WAIT_S = 30.0
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,4})\"?\s*(?:[,;]|$)", re.IGNORECASE)
_IMMEDIATE = re.compile(r"(?:^|,)\s*rollout\s*=\s*\"?immediate\"?\s*(?:[,;]|$)", re.IGNORECASE)

Outcome = TypeVar("Outcome")


def wanted_wait_s(prefer: str | None) -> float | None:
    """The seconds of ``wait`` in a ``Prefer`` field, bounded; ``None`` without one."""
    wait = _WAIT.search(prefer or "")
    return None if wait is None else min(float(wait[1]), MAX_WAIT_S)


def wants_immediate(prefer: str | None) -> bool:
    """Whether ``rollout=immediate`` is in a ``Prefer`` field: this write skips the canary."""
    return _IMMEDIATE.search(prefer or "") is not None


async def while_connected(request: Request, work: Coroutine[Any, Any, Outcome], deadline_s: float) -> Outcome:
    """The outcome of ``work``, which is cancelled when its client hangs up or ``deadline_s`` has passed.

    The body must have been read. Raises :class:`ClientDisconnect` and :class:`UnavailableError`.
    """
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({doing, gone}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if gone.done():
            raise ClientDisconnect
        raise UnavailableError(f"This took longer than the {deadline_s:g} s that the token's role may take.")
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
