"""Templates and static files, read once from this package."""

import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from control_plane.console.api import segment
from control_plane.console.figures import FILTERS

HERE = Path(__file__).parent
FOREVER = "public, max-age=31536000, immutable"
CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class StaticFile(NamedTuple):
    """A file as it is served; its version is a part of its address."""

    content: bytes
    media_type: str
    version: str


@cache
def static_files() -> dict[str, StaticFile]:
    """Every file under ``static/`` by its path there."""
    found = {}
    for path in sorted((HERE / "static").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            kind = mimetypes.guess_type(path.name)[0] or "text/plain"
            version = hashlib.sha256(content).hexdigest()[:12]
            found[path.relative_to(HERE / "static").as_posix()] = StaticFile(content, kind, version)
    return found


def static_url(name: str) -> str:
    """Where a browser finds a static file; another address when the file is another."""
    return f"/console/static/{name}?v={static_files()[name].version}"


@cache
def environment() -> Environment:
    """Jinja2 with escaping everywhere, and an error for a name that a template misspells."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(FILTERS, segment=segment)
    made.globals.update(static=static_url)
    return made


def render(template: str, **context: Any) -> str:
    """A page or a part of one."""
    return environment().get_template(template).render(context)


def html(template: str, status: int = 200, **context: Any) -> Response:
    """A page that no cache keeps."""
    headers = {**HEADERS, "Cache-Control": "no-store"}
    return Response(render(template, **context), status, headers, media_type="text/html")


async def static(request: Request) -> Response:
    """Serve a static file; it may be kept for as long as its address is asked for."""
    file = static_files().get(request.path_params["name"])
    if file is None:
        return Response("There is no such file.", 404, HEADERS, media_type="text/plain")
    return Response(file.content, 200, {**HEADERS, "Cache-Control": FOREVER}, media_type=file.media_type)
