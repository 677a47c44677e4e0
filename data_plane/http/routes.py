"""FastAPI routes of decisions, which the fast path mostly answers without them, and of operations."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from data_plane.http import openapi
from data_plane.http.answers import Answer, json_answer
from data_plane.http.caller import Headers
from data_plane.http.decision_handler import DecisionHandler
from data_plane.http.pending_checks import RepliedAuthorizeCheck, RepliedCheck, Reply
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES


async def read_body(request: Request, most: int) -> bytes:
    """The body, of at most ``most`` bytes; beyond that the request ends with 413."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise HTTPException(413, f"the body is over {most} bytes", {"connection": "close"})
        chunks.append(chunk)
    return b"".join(chunks)


def to_response(answer: Answer) -> Response:
    """An answer as Starlette sends it."""
    response = Response(answer.body, answer.status)
    for line in answer.headers.split(b"\r\n"):
        name, separator, value = line.partition(b": ")
        if separator:
            response.raw_headers.append((name, value))
    return response


class AnyPath(PathConvertor):
    """A path with an encoded end of line, too: Starlette's own stops there."""

    regex = "(?s:.*)"


register_url_convertor("any", AnyPath())


def decision_routes(handler: DecisionHandler) -> APIRouter:
    """``/v1/check``, ``/v1/check/batch`` and forward-auth."""
    router = APIRouter()

    @router.post("/v1/check", **openapi.CHECK)
    async def check(request: Request) -> Response:
        """May this request pass? 200 when allowed, 429 when denied; the body says by which limit."""
        body = await read_body(request, MAX_BODY_BYTES)
        return await _ask(lambda reply: handler.check(RepliedCheck(_headers(request), _peer(request), reply, body)))

    @router.post("/v1/check/batch", **openapi.CHECK_BATCH)
    async def check_batch(request: Request) -> Response:
        """Up to 1,000 checks in one call, answered in order; a bad one gets its own error."""
        body = await read_body(request, MAX_BATCH_BODY_BYTES)
        return await _ask(lambda reply: handler.check_batch(_headers(request), body, _peer(request), reply))

    async def authorize(request: Request) -> Response:
        """Forward-auth for gateways: 200, 401, 403 or 429, whatever an end client sends."""
        target = request.scope["raw_path"].decode("latin-1")
        if query := request.scope["query_string"]:
            target += "?" + query.decode("latin-1")
        headers = _headers(request)
        return await _ask(
            lambda reply: handler.authorize(
                request.method, target, RepliedAuthorizeCheck(headers, _peer(request), reply)
            )
        )

    router.add_api_route("/v1/authorize", authorize, methods=["GET"], **openapi.AUTHORIZE)
    for path in ("/v1/authorize", "/v1/authorize/{path:any}"):
        router.add_route(
            path, authorize, methods=[], include_in_schema=False
        )  # no methods named: any method, unknown ones too
    return router


def _headers(request: Request) -> Headers:
    return request.scope["headers"]  # type: ignore[no-any-return]  # ASGI's own type is untyped


def _peer(request: Request) -> str | None:
    return request.client.host if request.client else None


async def _ask(ask: Callable[[Reply], None]) -> Response:
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def reply(answer: Answer) -> None:
        if not answered.done():  # the client may have left, which cancels this request
            answered.set_result(answer)

    ask(reply)
    return to_response(await answered)


class Operations(Protocol):
    """The state of the process, for probes and scrapers."""

    draining: bool
    """Whether the process was asked to stop."""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process serves, and the body of ``/readyz``."""
        ...

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        ...

    def metrics(self) -> Response:
        """The answer of ``/metrics``."""
        ...


def health_routes(operations: Operations) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``, for probes and scrapers."""
    router = APIRouter()

    @router.get("/healthz", **openapi.HEALTH)
    async def healthz() -> dict[str, str]:
        """Alive: the process serves."""
        return {"status": "ok"}

    @router.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        """Ready: a config is in force, the store was reached once, strict limits are served, and it is not stopping."""
        is_ready, body = operations.ready()
        answer = json_answer(body)
        return to_response(answer if is_ready else msgspec.structs.replace(answer, status=503))

    @router.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return operations.metrics()

    return router


def operation_routes(operations: Operations) -> APIRouter:
    """The same routes, and ``/v1/status``."""
    router = health_routes(operations)

    @router.get("/v1/status", **openapi.STATUS)
    async def node_status() -> Response:
        """Region, revision, digest, age of the config, peers, store."""
        return to_response(json_answer(operations.status()))

    return router
