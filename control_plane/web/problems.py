"""The one place where errors become HTTP: RFC 9457 problems, with every wrong field named."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from control_plane.errors import (
    AnsweredBeforeError,
    ConflictError,
    ControlPlaneError,
    FieldError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    PreconditionFailedError,
    TooManyFailuresError,
    UnauthenticatedError,
    UnavailableError,
)
from tidegate.http_front.responses import TITLES

STATUS: dict[type[ControlPlaneError], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    InvalidError: 422,
    PreconditionFailedError: 412,
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    TooManyFailuresError: 429,
    UnavailableError: 503,
}
UNAVAILABLE_RETRY_S = 1
_BRANCHES = ("function-", "constrained-", "dict[", "literal[", "[key]")

_log = structlog.stdlib.get_logger("tidegate.http")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, /, **members: Any) -> JSONResponse:
    """A problem answer; ``members`` are added to the body."""
    body = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail, **members}
    return JSONResponse(body, status, dict(headers or {}), media_type="application/problem+json")


def of_error(error: ControlPlaneError) -> Response:  # one line a kind of error
    """The problem that an error of ours is; an answer that was given before is given again as it was."""
    if isinstance(error, AnsweredBeforeError):
        return Response(error.body, error.status, error.headers)
    status = STATUS[type(error)]
    detail = str(error)
    if isinstance(error, InvalidError | ConflictError):
        members: dict[str, Any] = {} if isinstance(error, InvalidError) else dict(error.members)
        if error.errors or isinstance(error, InvalidError):
            members["errors"] = [{"field": item.field, "message": item.message} for item in error.errors]
        return problem(status, detail, None, **members)
    if isinstance(error, UnauthenticatedError):
        return problem(status, detail, {"WWW-Authenticate": 'Bearer realm="tidegate"'})
    if isinstance(error, TooManyFailuresError):
        return problem(status, detail, {"Retry-After": str(error.retry_after_s)})
    if isinstance(error, UnavailableError):
        _log.warning("unavailable", cause=repr(error.__cause__))
        return problem(status, detail, {"Retry-After": str(UNAVAILABLE_RETRY_S)})
    return problem(status, detail)


def field_path(parts: Sequence[int | str]) -> str:
    """``("limits", 0, "burst")`` as ``limits[0].burst``."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def install(app: FastAPI) -> None:
    """Register the translations; whatever is not foreseen is a 500 that says nothing of the inside."""
    app.add_exception_handler(ControlPlaneError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)


async def _ours(_: Request, error: Exception) -> Response:
    return of_error(cast("ControlPlaneError", error))


async def _invalid(_: Request, error: Exception) -> Response:
    return of_error(InvalidError(_field_errors(cast("RequestValidationError", error).errors())))


def field_errors(items: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """What pydantic found in a value that is no body of a request."""
    return _field_errors([{**item, "loc": ("line", *item["loc"])} for item in items])


def _field_errors(items: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    errors = [_field_error(item) for item in items]
    pairs = list(zip(errors, items, strict=True))
    return [
        error
        for error, item in pairs
        if item["type"] != "literal_error"
        or not any(_is_of_branch_meant(other, of, error.field) for other, of in pairs)
    ]


def _is_of_branch_meant(error: FieldError, item: Mapping[str, Any], field: str) -> bool:
    """Whether the error shows that `field` was meant as what it may be beside a word, as shares beside `auto`."""
    return error.field.startswith((f"{field}.", f"{field}[")) or (
        error.field == field and item["type"] == "value_error"
    )


def _field_error(item: Mapping[str, Any]) -> FieldError:
    place, *parts = item["loc"]
    if place == "body" and isinstance(item.get("input"), bytes):  # curl's -d says that it is a form
        return FieldError("body", "is not taken for JSON: send Content-Type: application/json")
    if item["type"] == "json_invalid":
        return FieldError("body", "is not JSON: " + str(item.get("ctx", {}).get("error", "")).lower())
    if item["type"] == "extra_forbidden":
        return FieldError(field_path(parts), "unknown field")
    # pydantic names the branches of a union in the path, and that a name itself is wrong: keep what the caller wrote
    parts = [part for part in parts if isinstance(part, int) or not str(part).startswith(_BRANCHES)]
    message = str(item["msg"]).removeprefix("Value error, ")
    return FieldError(field_path(parts) or str(place), message)


async def _http(request: Request, error: Exception) -> JSONResponse:
    refused = cast("HTTPException", error)
    if refused.status_code == 405:
        # a router knows only the methods of the first route that fits the path
        return problem(405, refused.detail, {"Allow": ", ".join(await run_in_threadpool(_methods_of, request))})
    return problem(refused.status_code, refused.detail, refused.headers)


def _methods_of(request: Request) -> list[str]:
    segments = request.url.path.split("/")
    methods: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        wanted = template.split("/")
        if len(wanted) == len(segments) and all(
            part == segment or part.startswith("{") for part, segment in zip(wanted, segments, strict=True)
        ):
            methods.update(method.upper() for method in operations)
    return sorted(methods)


async def _gone(_: Request, __: Exception) -> JSONResponse:
    # nobody reads this: the client hung up before its body had arrived
    return problem(400, "The body ended early.")


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    _log.error("unforeseen error", path=request.url.path, exc_info=error)
    return problem(500, "Something went wrong on our side; it has been logged.")
