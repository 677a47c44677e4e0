"""What FastAPI cannot know of our answers: problems, credentials, and the headers of writes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control_plane.web.examples import example_of
from control_plane.web.links import give_links
from tidegate import api_pages
from tidegate.http_front.responses import TITLES

_TEXT = {"schema": {"type": "string"}}
_HEADERS: dict[str, Any] = {
    "X-Tidegate-Revision": {"description": "the newest revision after this write", "schema": {"type": "integer"}},
    "Preference-Applied": {"description": "`wait`: every connected node has it", **_TEXT},
    "X-Tidegate-Enforced-Ms": {
        "description": "with `wait`: milliseconds from the commit until every connected node enforced it",
        "schema": {"type": "number"},
    },
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "a request sent again under the same key within 24 h is not done again",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$"},
}
_SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of an admin (`tga_...`), or a JWT of the OpenID Connect provider.",
    },
    "region": {"type": "http", "scheme": "bearer", "description": "A region's credential (`tgr_...`)."},
}
_READS = (400, 401, 403, 404, 422, 429, 503)
_WRITES = (400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503)


def install(app: FastAPI) -> None:
    """Serve the document, made when it is first asked for in a thread: it takes a second, and nodes' streams go on.

    And the pages that show it.
    """
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way
    path = str(app.openapi_url)
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != path]
    app.router.routes.insert(0, Route(path, _document, include_in_schema=False))
    api_pages.install(app)


def _document(request: Request) -> Response:
    return JSONResponse(request.app.openapi())


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of ``app``, made once."""
    if app.openapi_schema:
        return app.openapi_schema
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = schema.setdefault("components", {})
    kept = components.setdefault("schemas", {})
    kept.pop("HTTPValidationError", None)
    kept.pop("ValidationError", None)
    kept["Problem"] = api_pages.PROBLEM
    components["securitySchemes"] = _SECURITY
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _describe_operation(path, method, operation)
            _give_examples(operation, kept)
    give_links(schema["paths"])
    app.openapi_schema = schema
    return schema


def _give_examples(operation: dict[str, Any], components: dict[str, Any]) -> None:
    """Every body that is asked for or answered has an example."""
    bodies = [operation.get("requestBody", {})]
    bodies += [body for status, body in operation["responses"].items() if status.startswith("2")]
    for body in bodies:
        for media in body.get("content", {}).values():
            if "example" not in media and "examples" not in media:
                media["example"] = example_of(media.get("schema", {}), components)


def _describe_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    if path.startswith("/v1/"):
        operation["security"] = [{"token": []}]
    elif path.startswith("/internal/"):
        operation["security"] = [{"region": []}]
    else:
        return
    if method not in {"get", "head"} and path.startswith("/v1/"):
        for response in responses.values():
            response["headers"] = _HEADERS
    parameters = operation.get("parameters", [])
    writes = any(parameter["name"].lower() == "x-tidegate-reason" for parameter in parameters)
    if method == "post" and writes and not path.endswith("/import"):
        parameters.append(_IDEMPOTENCY_KEY)
    for status in _READS if method in {"get", "head"} else _WRITES:
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses[str(status)] = {"description": TITLES[status], "content": content}
