"""The node's HTTP application: the decision routes for any ASGI server, health, status, metrics, and the peers' door."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES
from data_plane.api import openapi
from data_plane.api.answers import TITLES, Answer, json_answer, problem
from data_plane.api.caller import Headers
from data_plane.api.door import Door, Reply

StatusSource = Callable[[], dict[str, Any]]
Ready = Callable[[], tuple[bool, dict[str, Any]]]
PeerDoor = Callable[[Headers, bytes], Awaitable[Answer]]

ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
MAX_PEER_BODY_BYTES = 4 * 1024 * 1024


def create_app(
    door: Door, *, status: StatusSource, ready: Ready, metrics: Callable[[], Response], counts: PeerDoor,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:  # fmt: skip
    """Build the application around a door that decides."""
    app = FastAPI(
        title="Tidegate node", version="1", redoc_url=None, openapi_tags=openapi.TAGS, lifespan=lifespan
    )  # fmt: skip

    @app.post("/v1/check", **openapi.CHECK)
    async def check(request: Request) -> Response:
        """May this request pass? 200 when allowed, 429 when denied; the body says by which limit."""
        body = await _body(request, MAX_BODY_BYTES)
        if isinstance(body, Response):
            return body
        return await _ask(lambda reply: door.check(_headers(request), body, reply))

    @app.post("/v1/check/batch", **openapi.CHECK_BATCH)
    async def check_batch(request: Request) -> Response:
        """Up to 1,000 checks in one call, answered in order; a bad one gets its own error."""
        body = await _body(request, MAX_BATCH_BODY_BYTES)
        if isinstance(body, Response):
            return body
        return await _ask(lambda reply: door.check_batch(_headers(request), body, reply))

    async def authorize(request: Request) -> Response:
        """Forward-auth for gateways: 200, 401, 403 or 429, whatever an end client sends."""
        target = request.scope["raw_path"].decode("latin-1")
        if query := request.scope["query_string"]:
            target += "?" + query.decode("latin-1")
        return await _ask(lambda reply: door.authorize(request.method, target, _headers(request), reply))

    for path, shown in (("/v1/authorize", True), ("/v1/authorize/{path:path}", False)):
        app.add_api_route(path, authorize, methods=ANY_METHOD, include_in_schema=False)
        if shown:
            app.add_api_route(path, authorize, methods=["GET"], **openapi.AUTHORIZE)

    @app.post("/internal/v1/counts", include_in_schema=False)
    async def peer_counts(request: Request) -> Response:
        body = await _body(request, MAX_PEER_BODY_BYTES)
        if isinstance(body, Response):
            return body
        return to_response(await counts(_headers(request), body))

    @app.get("/healthz", **openapi.HEALTH)
    async def healthz() -> dict[str, str]:
        """Alive: the process serves."""
        return {"status": "ok"}

    @app.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        """Ready: a config is in force. Says whether decisions are degraded."""
        is_ready, body = ready()
        answer = json_answer(body)
        return to_response(answer if is_ready else answer._replace(status=503))

    @app.get("/v1/status", **openapi.STATUS)
    async def node_status() -> Response:
        """Region, revision, digest, age of the config, peers, store."""
        return to_response(json_answer(status()))

    @app.get("/metrics", **openapi.METRICS)
    async def scrape() -> Response:
        """Prometheus metrics."""
        return metrics()

    @app.exception_handler(HTTPException)
    async def as_problem(_request: Request, error: HTTPException) -> Response:
        title = TITLES.get(error.status_code, "Error")
        answer = problem(error.status_code, error.detail or title)
        response = to_response(answer)
        response.headers.update(error.headers or {})
        return response

    return app


def to_response(answer: Answer) -> Response:
    """An answer as Starlette sends it."""
    response = Response(answer.body, answer.status)
    for line in answer.headers.split(b"\r\n"):
        name, separator, value = line.partition(b": ")
        if separator:
            response.raw_headers.append((name, value))
    return response


def _headers(request: Request) -> Headers:
    return request.scope["headers"]  # type: ignore[no-any-return]  # ASGI's own type is untyped


async def _ask(ask: Callable[[Reply], None]) -> Response:
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def reply(answer: Answer) -> None:
        if not answered.done():  # the client may have gone, and this request with it
            answered.set_result(answer)

    ask(reply)
    return to_response(await answered)


async def _body(request: Request, most: int) -> bytes | Response:
    """The body, read no further than ``most`` bytes."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            response = to_response(problem(413, f"the body is over {most} bytes"))
            response.headers["connection"] = "close"
            return response
        chunks.append(chunk)
    return b"".join(chunks)
