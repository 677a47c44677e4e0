"""Counts requests by route template and status."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.metrics import Metrics

UNMATCHED = "unmatched"


class Measured:
    """ASGI middleware, the outermost: what it counts includes refusals by the others."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request when its answer begins."""
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
    # an end client may send any word: each would be a series of its own
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
