"""The decision endpoints as FastAPI routes: slower than the fast path, and open to every ASGI server."""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from data_plane.http import openapi
from data_plane.http.answers import Answer
from data_plane.http.bodies import read_body, to_response
from data_plane.http.caller import Headers
from data_plane.http.decision_handler import DecisionHandler
from data_plane.http.pending_checks import RepliedAuthorizeCheck, RepliedCheck, Reply
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES


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
        if isinstance(body, Response):
            return body
        return await _ask(lambda reply: handler.check(RepliedCheck(_headers(request), body, _peer(request), reply)))

    @router.post("/v1/check/batch", **openapi.CHECK_BATCH)
    async def check_batch(request: Request) -> Response:
        """Up to 1,000 checks in one call, answered in order; a bad one gets its own error."""
        body = await read_body(request, MAX_BATCH_BODY_BYTES)
        if isinstance(body, Response):
            return body
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
        router.add_route(path, authorize, methods=[], include_in_schema=False)  # none named: any, made up ones too
    return router


def _headers(request: Request) -> Headers:
    return request.scope["headers"]  # type: ignore[no-any-return]  # ASGI's own type is untyped


def _peer(request: Request) -> str | None:
    return request.client.host if request.client else None


async def _ask(ask: Callable[[Reply], None]) -> Response:
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def reply(answer: Answer) -> None:
        if not answered.done():  # the client may have gone, and this request with it
            answered.set_result(answer)

    ask(reply)
    return to_response(await answered)
