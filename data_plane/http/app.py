"""The HTTP applications of nodes (decisions, operations) and agents (peers, operations), for any ASGI server."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_plane.http import openapi
from data_plane.http.answers import problem
from data_plane.http.decision_handler import DecisionHandler
from data_plane.http.denial_reports import DenialReports, denial_routes
from data_plane.http.hold_handler import HoldHandler, hold_routes
from data_plane.http.load_handler import LoadHandler, load_routes
from data_plane.http.me import MeHandler, me_routes
from data_plane.http.routes import Operations, decision_routes, operation_routes, to_response
from tidegate import api_pages
from tidegate.http_front.responses import TITLES


class ClosingWhileDraining:
    """Ends every connection with its next answer while the node drains, so that clients reconnect elsewhere."""

    def __init__(self, app: ASGIApp, operations: Operations) -> None:
        self._app = app
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass through, or say ``Connection: close``."""

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        is_last = self._operations.draining and scope["type"] == "http"
        await self._app(scope, receive, send_last if is_last else send)


def create_app(
    handler: DecisionHandler,
    hold_handler: HoldHandler,
    load_handler: LoadHandler,
    denial_reports: DenialReports,
    me: MeHandler,
    operations: Operations,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """Build the application around a handler that decides."""
    app = FastAPI(
        title="Tidegate node", version="1", docs_url=None, redoc_url=None, openapi_tags=openapi.TAGS, lifespan=lifespan
    )
    app.include_router(decision_routes(handler))
    app.include_router(hold_routes(hold_handler))
    app.include_router(load_routes(load_handler))
    app.include_router(denial_routes(denial_reports))
    app.include_router(me_routes(me))
    app.include_router(operation_routes(operations))
    api_pages.install(app)

    _finish(app, operations)
    return app


def create_agent_app(
    operations: Operations, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
) -> FastAPI:
    """Build the application of an agent; messages of other regions take the fast path."""
    app = FastAPI(title="Tidegate region agent", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.include_router(operation_routes(operations))
    _finish(app, operations)
    return app


def _finish(app: FastAPI, operations: Operations) -> None:
    """Add what both applications have: problems for errors, and an end of connections while draining."""
    app.add_middleware(ClosingWhileDraining, operations=operations)

    @app.exception_handler(HTTPException)
    async def as_problem(_request: Request, error: HTTPException) -> Response:
        title = TITLES[error.status_code]
        response = to_response(problem(error.status_code, error.detail or title))
        response.headers.update(error.headers or {})
        return response
