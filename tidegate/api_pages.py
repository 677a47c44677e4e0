"""What the API descriptions of both planes share: the schema of errors, and ``/docs``, without a script from elsewhere.

FastAPI's own page loads its scripts from a CDN. Ours come from the wheel ``fastapi-offline``, which holds Swagger UI;
the wheel's own page begins with a script inside the page, which our policy refuses.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {
                    "field": {"type": "string", "examples": ["limits[0].burst"]},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
_START: Final = """window.ui = SwaggerUIBundle({
  url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
"""
_FILES: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="docs/favicon.png"><link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>
"""
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI writes styles into the page
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def install(app: FastAPI) -> None:
    """Add the page to ``app``, which was made without FastAPI's own. Addresses are relative, so a prefix is kept."""
    html = _PAGE.format(title=app.title)

    async def show(_request: Request) -> Response:
        return HTMLResponse(html, headers=_HEADERS)

    app.router.routes += [
        Route("/docs", show, include_in_schema=False),
        Route("/docs/{name}", _file, include_in_schema=False),
    ]


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    headers = {**_HEADERS, "Cache-Control": "public, max-age=86400"}
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers=headers)
    if name not in _FILES:
        raise HTTPException(404)
    return FileResponse(Path(str(files("fastapi_offline") / "static" / name)), headers=headers)
