"""The session's cookie, and whether a POST comes from our own pages."""

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from control_plane.console.sessions import LONGEST

SECURE, PLAIN = "__Host-tidegate", "tidegate-console"
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


def is_same_origin(request: Request) -> bool:
    """Whether a page of this console sent the request: by ``Sec-Fetch-Site``, in old browsers by ``Origin``."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


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
