"""``/docs`` and ``/redoc``: the pages on which a process describes its API, without a script from anywhere else.

FastAPI's own load theirs from a CDN. The scripts come from the wheel ``fastapi-offline``, which holds Swagger UI and
ReDoc and nothing else of weight; its own pages begin with a script inside the page, which our policy refuses.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

_SWAGGER: Final = """window.ui = SwaggerUIBundle({
  url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
"""
_REDOC: Final = """Redoc.init("openapi.json", { disableSearch: true, hideLogo: true }, document.getElementById("page"));
"""
_STARTS: Final = {"swagger.js": _SWAGGER, "redoc.js": _REDOC}
_FILES: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js", "favicon.png")
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="docs/favicon.png"><link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><div id="page"></div><script src="docs/{script}"></script><script src="docs/{start}"></script></body></html>
"""
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # both write styles into the page
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
    """Add the pages to ``app``, which was made without FastAPI's own. Addresses are relative, so a prefix is kept."""

    def page(script: str, start: str) -> Route:
        html = _PAGE.format(title=app.title, script=script, start=start)

        async def show(_request: Request) -> Response:
            return HTMLResponse(html, headers=_HEADERS)

        return Route("/" + start.removesuffix(".js").replace("swagger", "docs"), show, include_in_schema=False)

    app.router.routes += [
        page("swagger-ui-bundle.js", "swagger.js"),
        page("redoc.standalone.js", "redoc.js"),
        Route("/docs/{name}", _file, include_in_schema=False),
    ]


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    headers = {**_HEADERS, "Cache-Control": "public, max-age=86400"}
    if name in _STARTS:
        return Response(_STARTS[name], media_type="text/javascript", headers=headers)
    if name not in _FILES:
        raise HTTPException(404)
    return FileResponse(Path(str(files("fastapi_offline") / "static" / name)), headers=headers)
