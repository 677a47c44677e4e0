"""Authentication in front of everything, before any body is read: who calls, or 401."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp, Receive, Scope, Send

from contract.credentials import secret_sha256
from control_plane.access.principals import Principal
from control_plane.access.throttle import FailureThrottle
from control_plane.database import Database
from control_plane.errors import ControlPlaneError, TooManyFailuresError, UnauthenticatedError
from control_plane.web import problems

Lookup = Callable[[AsyncSession, str], Awaitable[Principal | None]]
MAX_SECRET_LENGTH = 512


class Authentication:
    """ASGI middleware: puts the caller into ``scope["principal"]``.

    ``lookups`` says, by path prefix, how a credential's SHA-256 is found; other paths are public. The comparison is
    the database's, on the hash of a secret, so its timing tells nothing about the secret.
    """

    def __init__(self, app: ASGIApp, *, lookups: Mapping[str, Lookup], max_failures: int) -> None:
        self._app = app
        self._lookups = lookups
        self._throttles = {prefix: FailureThrottle(max_failures) for prefix in lookups}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through who is known."""
        prefix = next((prefix for prefix in self._lookups if scope.get("path", "").startswith(prefix)), None)
        if scope["type"] != "http" or prefix is None:
            return await self._app(scope, receive, send)
        try:
            scope["principal"] = await self._authenticate(scope, prefix)
        except ControlPlaneError as error:
            return await problems.of_error(error)(scope, receive, send)
        return await self._app(scope, receive, send)

    async def _authenticate(self, scope: Scope, prefix: str) -> Principal:
        address = scope["client"][0] if scope.get("client") else "unknown"
        throttle = self._throttles[prefix]
        secret = _bearer(scope)
        blocked_s = throttle.blocked_for_s(address, time.monotonic())
        if blocked_s:
            raise TooManyFailuresError(math.ceil(blocked_s))
        database: Database = scope["state"]["database"]
        async with database.read() as session:
            principal = await self._lookups[prefix](session, secret_sha256(secret))
        if principal is None:
            throttle.failed(address, time.monotonic())
            raise UnauthenticatedError("The credential is not known, has expired or was revoked.")
        return principal


def _bearer(scope: Scope) -> str:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        raise UnauthenticatedError("Send one Authorization header: Bearer and your token.")
    scheme, _, secret = values[0].partition(b" ")
    secret = secret.strip()
    if scheme.lower() != b"bearer" or not secret or len(secret) > MAX_SECRET_LENGTH:
        raise UnauthenticatedError("Send the Authorization header as: Bearer and your token.")
    try:
        return str(secret.decode())
    except UnicodeDecodeError:
        raise UnauthenticatedError("The credential is not text.") from None
