"""Every request has an id: the caller's ``X-Request-Id`` where it is sound, else a new one; the answer says which."""

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SOUND = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestIds:
    """ASGI middleware: puts the id into ``scope["request_id"]`` and into the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request."""
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
