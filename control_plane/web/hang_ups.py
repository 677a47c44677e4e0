"""Work that is for its client alone: it ends when the client hangs up, or after a time."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from control_plane.errors import UnavailableError

Outcome = TypeVar("Outcome")


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
