"""Bodies are bounded before anything reads them, and by what the caller may do."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.access.principals import READS, AdminRole, allows, require
from control_plane.errors import ForbiddenError
from control_plane.web import problems

MAX_BODY_BYTES = 1024 * 1024
MAX_FILE_BYTES = 128 * 1024 * 1024
LARGER: dict[str, AdminRole] = {
    "/v1/config": "operator",
    "/v1/config/diff": "viewer",
    "/v1/clients/import": "operator",
    "/v1/keys/import": "operator",
}
"""Paths whose bodies may have 128 MiB, and the role that sending any needs. Of a viewer 1 MiB is taken there too."""


class BodyLimit:
    """ASGI middleware: 413 for a body over 1 MiB, of a whole file by who may write over 128 MiB, announced or not.

    FastAPI reads and parses a body before any dependency asks for the role: where a whole file may come, the role is
    asked for here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse by ``Content-Length``, else count what arrives."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        role = LARGER.get(scope.get("path", ""))
        most = MAX_FILE_BYTES if role is not None and allows(scope["principal"], "operator") else MAX_BODY_BYTES
        if role is not None and scope["method"] not in READS:
            try:
                require(scope["principal"], role)
            except ForbiddenError as error:
                return await problems.of_error(error)(scope, receive, send)
        too_large = f"The body is larger than {most} bytes."
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > most):
                return await problems.problem(413, too_large)(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413, too_large)
            return message

        return await self._app(scope, counted, send)
