"""``/internal/v1/usage``, ``/questions``, ``/answers``: what nodes counted, and what they are asked."""

import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from control_plane.access.principals import Caller, region_only
from control_plane.errors import FieldError, ForbiddenError, InvalidError
from control_plane.usage.shipments import take
from control_plane.web.messages import body_of, decoded, json_of
from tidegate.contract.questions import NodeAnswer, Questions
from tidegate.contract.usage import PROTOCOL_VERSION, Shipment, ShipmentAnswer

router = APIRouter(prefix="/internal/v1", tags=["nodes"], dependencies=[Depends(region_only)])
_decoder = msgspec.msgpack.Decoder(Shipment)
_answer_decoder = msgspec.json.Decoder(NodeAnswer)
MAX_WAIT_S = 30.0
CLOSING_EVERY_S = 0.5
_BODY = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


@router.post(
    "/usage",
    openapi_extra={"requestBody": _BODY},
    responses={200: {"content": json_of(ShipmentAnswer)}},
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


@router.get(
    "/questions",
    responses={200: {"content": json_of(Questions)}},
    response_class=Response,
)
async def next_questions(
    request: Request,
    caller: Caller,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT_S, description="seconds to hold the answer while there is none")
    ] = 0,
) -> Response:
    """What somebody wants to know of the region at this moment; one node of a region waits here."""
    state = request.state
    deadline = time.monotonic() + wait
    while True:
        slice_s = min(CLOSING_EVERY_S, max(0.0, deadline - time.monotonic()))
        found = await state.questions.next_for(caller.name, slice_s)
        if found or state.watcher.closing or time.monotonic() >= deadline:
            return Response(msgspec.json.encode(Questions(found)), media_type="application/json")


@router.post("/answers", status_code=204, openapi_extra=body_of(NodeAnswer))
async def take_answer(request: Request, caller: Caller) -> Response:
    """What a node found (a `NodeAnswer` of the contract); one that comes too late is of no use and does no harm."""
    answer = decoded(_answer_decoder, await request.body())
    await request.state.questions.answered(caller.name, answer)
    return Response(status_code=204)


def _shipment(body: bytes) -> Shipment:
    shipment = decoded(_decoder, body)
    if shipment.version != PROTOCOL_VERSION:
        raise InvalidError([FieldError("version", f"is {shipment.version}; this is version {PROTOCOL_VERSION}")])
    return shipment
