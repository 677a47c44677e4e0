"""``POST /internal/v1/usage``: what the nodes of a region counted."""

from datetime import UTC, datetime

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from contract.usage import PROTOCOL_VERSION, Shipment
from control_plane.access.principals import Caller, region_only
from control_plane.errors import FieldError, ForbiddenError, InvalidError
from control_plane.usage.taking import take

router = APIRouter(prefix="/internal/v1", tags=["nodes"], dependencies=[Depends(region_only)])
_decoder = msgspec.msgpack.Decoder(Shipment)
_BODY = {
    "required": True,
    "content": {"application/msgpack": {"schema": {"type": "string", "format": "binary"}}},
}
_ANSWER = {
    "type": "object",
    "required": ["taken", "known", "refused"],
    "properties": {
        "taken": {"type": "integer"},
        "known": {"type": "integer"},
        "refused": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["position", "reason"],
                "properties": {"position": {"type": "integer"}, "reason": {"type": "string"}},
            },
        },
    },
}


@router.post(
    "/usage",
    openapi_extra={"requestBody": _BODY},
    responses={200: {"content": {"application/json": {"schema": _ANSWER}}}},
    response_class=Response,
)
async def take_usage(request: Request, caller: Caller) -> Response:
    """Take a `Shipment` of the contract (MessagePack). Answered once it is committed; a second copy adds nothing."""
    shipment = _shipment(await request.body())
    if shipment.region != caller.name:
        raise ForbiddenError(f"This credential speaks for the region {caller.name}, not for another.")
    state = request.state
    answer = await take(state.database, state.usage_partitions, shipment, datetime.now(UTC))
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _shipment(body: bytes) -> Shipment:
    try:
        shipment = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidError([FieldError("body", str(error))]) from None
    if shipment.version != PROTOCOL_VERSION:
        raise InvalidError([FieldError("version", f"is {shipment.version}; this is version {PROTOCOL_VERSION}")])
    return shipment
