"""Authentication in front of everything, before any body is read: who calls, or 401."""

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.access.live import LiveCredentials
from control_plane.access.principals import Principal
from control_plane.access.throttle import Attempter, FailureThrottle, NarrowGate
from control_plane.database import Database
from control_plane.errors import ControlPlaneError, TooManyFailuresError, UnauthenticatedError
from control_plane.web import problems
from tidegate.contract.credentials import is_mistyped, secret_sha256

Lookup = Callable[[AsyncSession, str], Awaitable[Principal | None]]
VouchedFor = Callable[[str], Awaitable[Principal]]
MAX_SECRET_LENGTH = 512
MAX_REMEMBERED = 10_000


class Remembered:
    """Who a credential's hash belongs to, for ``keep_s`` at most: so long may a revoked one still be let in."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._found: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    def get(self, sha256: str, now_s: float) -> Principal | None:
        """Who it is, if that was found within ``keep_s``."""
        found = self._found.get(sha256)
        return found[1] if found is not None and now_s - found[0] < self._keep_s else None

    def put(self, sha256: str, principal: Principal, now_s: float) -> None:
        """It was found."""
        self._found[sha256] = (now_s, principal)
        self._found.move_to_end(sha256)
        while len(self._found) > MAX_REMEMBERED:
            self._found.popitem(last=False)


class Authentication:
    """ASGI middleware: puts the caller into ``scope["principal"]``.

    ``lookups`` says, by path prefix, how a credential's SHA-256 is found; other paths are public. The comparison is
    the database's, on the hash of a secret, so its timing shows nothing of the secret. ``remember_s`` says, by path
    prefix, for how long one that was found is let in without another look. ``vouched_for`` says, by path prefix, how a
    JWT is looked at: nobody guesses a signature, so no throttle stands before it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        lookups: Mapping[str, Lookup],
        live: LiveCredentials,
        max_failures: int,
        note_used: Callable[[str], None] | None = None,
        remember_s: Mapping[str, float] | None = None,
        vouched_for: Mapping[str, VouchedFor] | None = None,
    ) -> None:
        self._app = app
        self._lookups = lookups
        self._throttles = {prefix: FailureThrottle(max_failures) for prefix in lookups}
        self._gates = {prefix: NarrowGate() for prefix in lookups}
        self._live = live
        self._note_used = note_used
        self._vouched_for = vouched_for or {}
        self._remembered = {prefix: Remembered(keep_s) for prefix, keep_s in (remember_s or {}).items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through who is known."""
        prefix = next((prefix for prefix in self._lookups if scope.get("path", "").startswith(prefix)), None)
        if scope["type"] != "http" or prefix is None:
            return await self._app(scope, receive, send)
        try:
            principal = scope["principal"] = await self._authenticate(scope, prefix)
        except ControlPlaneError as error:
            return await problems.of_error(error)(scope, receive, send)
        if self._note_used is not None:
            self._note_used(principal.id)
        return await self._app(scope, receive, send)

    async def _authenticate(self, scope: Scope, prefix: str) -> Principal:
        address = scope["client"][0] if scope.get("client") else "unknown"
        throttle = self._throttles[prefix]
        secret = _bearer(scope)
        if prefix in self._vouched_for and _is_jwt(secret):
            return await self._vouched_for[prefix](secret)
        if len(secret) > MAX_SECRET_LENGTH:
            raise UnauthenticatedError("The credential is too long to be one.")
        sha256 = secret_sha256(secret)
        attempter = Attempter.of(address, secret)
        blocked_s = throttle.blocked_for_s(attempter, time.monotonic())
        database: Database = scope["state"]["database"]
        if is_mistyped(secret):
            principal = None
        elif blocked_s and not self._live.holds(prefix, sha256):
            # it may still be right: made a moment ago by another replica
            if self._gates[prefix].full:
                raise TooManyFailuresError(math.ceil(blocked_s))
            async with self._gates[prefix].turn():
                principal = await self._look_up(database, prefix, sha256)
        else:
            principal = await self._look_up(database, prefix, sha256)
        if principal is not None:
            self._live.found(prefix, sha256)
            return principal
        self._live.missed(prefix, sha256)
        throttle.failed(attempter, time.monotonic())
        if blocked_s:
            raise TooManyFailuresError(math.ceil(blocked_s))
        raise UnauthenticatedError("The credential is not known, has expired or was revoked.")

    async def _look_up(self, database: Database, prefix: str, sha256: str) -> Principal | None:
        remembered = self._remembered.get(prefix)
        principal = None if remembered is None else remembered.get(sha256, time.monotonic())
        if principal is not None:
            return principal
        async with database.read(reserved=True) as session:
            principal = await self._lookups[prefix](session, sha256)
        if principal is not None and remembered is not None:
            remembered.put(sha256, principal, time.monotonic())
        return principal


def _is_jwt(secret: str) -> bool:
    """Whether it looks like a JWT: three parts, of which the first is a JSON object in Base64."""
    return secret.startswith("eyJ") and secret.count(".") == 2


def _bearer(scope: Scope) -> str:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        raise UnauthenticatedError("Send one Authorization header: Bearer and your token.")
    scheme, _, secret = values[0].partition(b" ")
    secret = secret.strip()
    if scheme.lower() != b"bearer" or not secret:
        raise UnauthenticatedError("Send the Authorization header as: Bearer and your token.")
    try:
        return str(secret.decode())
    except UnicodeDecodeError:
        raise UnauthenticatedError("The credential is not text.") from None
