"""Reports of load as FastAPI routes."""

from fastapi import APIRouter, Request, Response

from data_plane.http import openapi
from data_plane.http.bodies import read_body, to_response
from data_plane.http.load_handler import LoadHandler
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES


def load_routes(handler: LoadHandler) -> APIRouter:
    """``/v1/load`` and ``/v1/report``."""
    router = APIRouter()

    @router.post("/v1/load", status_code=202, **openapi.LOAD)
    async def load(request: Request) -> Response:
        """How busy backends are; needs a reporter's credential, which is bound to them."""
        body = await read_body(request, MAX_BODY_BYTES)
        return body if isinstance(body, Response) else to_response(handler.load(request.scope["headers"], body))

    @router.post("/v1/report", status_code=202, **openapi.REPORT)
    async def report(request: Request) -> Response:
        """What became of requests that a gateway forwarded; needs a gateway token."""
        body = await read_body(request, MAX_BATCH_BODY_BYTES)
        return body if isinstance(body, Response) else to_response(handler.served(request.scope["headers"], body))

    return router
