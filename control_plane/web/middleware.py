"""ASGI middleware of every request: its id, and its count by route template and status."""

import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.metrics import Metrics

UNMATCHED = "unmatched"
_SOUND = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestIds:
    """Puts the request's id into ``scope["request_id"]`` and into the answer.

    The id is the caller's ``X-Request-Id`` if it is well-formed, otherwise a new one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        id = given if _SOUND.fullmatch(given) else secrets.token_hex(8).encode()
        scope["request_id"] = id.decode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", id)]
            await send(message)

        return await self._app(scope, receive, named)


class Measured:
    """Counts requests; it is the outermost middleware, so that it counts refusals of the others too."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; it is counted when its answer begins."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", UNMATCHED)
                self._metrics.request_answered(
                    _known(scope["method"]), route, message["status"], time.monotonic() - began
                )
            await send(message)

        return await self._app(scope, receive, counted)


def _known(method: str) -> str:
    # clients may send any method, and each would be a series of its own
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
