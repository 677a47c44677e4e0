"""The session's cookie, and whether a POST comes from our own pages."""

from starlette.requests import Request
from starlette.responses import Response

from control_plane.console.repository import LONGEST
from control_plane.oidc.sign_in import SIGN_IN_LASTS_S

SECURE, PLAIN = "__Host-tidegate", "tidegate-console"
SIGN_IN = "-sign-in"
"""What the name of the cookie ends with that a browser comes back from the identity provider with."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")


def secret_in(request: Request) -> str | None:
    """The secret that the browser sent."""
    return request.cookies.get(_name(request)) or None


def give(request: Request, response: Response, secret: str) -> None:
    """Let the browser keep a session's secret, out of reach of scripts and of other sites."""
    response.set_cookie(
        _name(request),
        secret,
        max_age=int(LONGEST.total_seconds()),
        path="/",
        secure=not _is_loopback(request),
        httponly=True,
        samesite="strict",
    )


def take(request: Request, response: Response) -> None:
    """Let the browser forget it."""
    response.delete_cookie(_name(request), path="/", secure=not _is_loopback(request), httponly=True, samesite="strict")


def sign_in_of(request: Request) -> str | None:
    """What the browser keeps of a sign-in that began."""
    return request.cookies.get(_name(request) + SIGN_IN) or None


def give_sign_in(request: Request, response: Response, value: str) -> None:
    """Let the browser keep it: it comes along where another site sends the browser here, and nowhere else."""
    response.set_cookie(
        _name(request) + SIGN_IN,
        value,
        max_age=SIGN_IN_LASTS_S,
        path="/",
        secure=not _is_loopback(request),
        httponly=True,
        samesite="lax",
    )


def take_sign_in(request: Request, response: Response) -> None:
    """Let the browser forget it."""
    name, secure = _name(request) + SIGN_IN, not _is_loopback(request)
    response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")


def is_same_origin(request: Request) -> bool:
    """Whether a page of this console sent the request: by ``Sec-Fetch-Site``, in old browsers by ``Origin``."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] == request.headers.get("host")


def _name(request: Request) -> str:
    return PLAIN if _is_loopback(request) else SECURE


def _is_loopback(request: Request) -> bool:
    """Plain HTTP on this machine, with nothing in between: the one place where a cookie may do without TLS."""
    host = request.headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return (
        request.url.scheme == "http"
        and name in _LOOPBACK
        and not any(header in request.headers for header in _FORWARDED)
    )
