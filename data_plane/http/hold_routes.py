"""Leases and reservations as FastAPI routes."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from data_plane.http import openapi
from data_plane.http.answers import Answer
from data_plane.http.bodies import read_body, to_response
from data_plane.http.caller import Headers
from data_plane.http.hold_handler import HoldHandler
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES

Serve = Callable[[Headers, bytes], Awaitable[Answer]]


def hold_routes(handler: HoldHandler) -> APIRouter:
    """``/v1/leases`` and ``/v1/reservations``."""
    router = APIRouter()

    async def serve(request: Request, most: int, ask: Serve) -> Response:
        body = await read_body(request, most)
        if isinstance(body, Response):
            return body
        return to_response(await ask(request.scope["headers"], body))

    @router.post("/v1/leases", **openapi.LEASE)
    async def lease(request: Request) -> Response:
        """Take units for a short time, to decide without asking; what is not spent is to be returned."""
        return await serve(request, MAX_BATCH_BODY_BYTES, handler.lease)

    @router.post("/v1/leases/return", **openapi.LEASE_RETURN)
    async def give_back(request: Request) -> Response:
        """Return what leases did not spend. Each lease is returned once."""
        return await serve(request, MAX_BATCH_BODY_BYTES, handler.give_back)

    @router.post("/v1/reservations", **openapi.RESERVATION)
    async def reserve(request: Request) -> Response:
        """Take an estimate of a cost that is known only afterwards."""
        return await serve(request, MAX_BODY_BYTES, handler.reserve)

    @router.post("/v1/reservations/settle", **openapi.SETTLEMENT)
    async def settle(request: Request) -> Response:
        """Settle a reservation at its true cost; the same settlement may be sent again."""
        return await serve(request, MAX_BODY_BYTES, handler.settle)

    return router
