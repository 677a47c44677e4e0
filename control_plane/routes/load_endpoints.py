"""``/internal/v1/load``: what a region's deciding node says of its backends, with the region's credential."""

import math
from contextlib import suppress

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy.exc import IntegrityError

from control_plane.access.principals import Caller, region_only
from control_plane.database import Database
from control_plane.errors import FieldError, InvalidError
from control_plane.routes import repository
from tidegate.contract.decoding import UNREADABLE, what_is_wrong
from tidegate.contract.load import RegionLoad

router = APIRouter(prefix="/internal/v1", tags=["nodes"], dependencies=[Depends(region_only)])
MAX_BACKENDS = 1_000
MAX_CLASSES = 64
MAX_TEXT = 128
MAX_COUNT = 2**53
LATEST_S = 7_258_118_400.0
"""The year 2200."""
_decoder = msgspec.json.Decoder(RegionLoad)
_TEXT = {"type": "string", "maxLength": MAX_TEXT, "pattern": "^[^\\x00]*$"}
_FIGURE = {"type": "number"}
_INSTANT = {"type": "number", "minimum": 0, "exclusiveMaximum": LATEST_S}
_CLASS = {
    "type": "object",
    "required": ["priority", "factor", "offered_per_s"],
    "properties": {
        "priority": {"type": "integer", "minimum": -MAX_COUNT, "maximum": MAX_COUNT},
        "factor": _FIGURE,
        "offered_per_s": _FIGURE,
    },
}
_BACKEND = {
    "type": "object",
    "required": ["backend", "policy", "factor", "reason", "since", "decided_at", "decided_by"],
    "properties": {
        "backend": _TEXT,
        "policy": _TEXT,
        "factor": _FIGURE,
        "reason": _TEXT,
        "since": _INSTANT,
        "decided_at": _INSTANT,
        "decided_by": _TEXT,
        "signal": {"anyOf": [_TEXT, {"type": "null"}]},
        "load": {"type": ["number", "null"]},
        "reporters": {"type": "integer", "minimum": 0, "maximum": MAX_COUNT},
        "classes": {"type": "array", "maxItems": MAX_CLASSES, "items": _CLASS},
    },
}
_SCHEMA = {
    "type": "object",
    "required": ["node"],
    "properties": {"node": _TEXT, "backends": {"type": "array", "maxItems": MAX_BACKENDS, "items": _BACKEND}},
}
_BODY = {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}


@router.post("/load", status_code=204, openapi_extra={"requestBody": _BODY})
async def report_load(request: Request, caller: Caller) -> Response:
    """A region's factors, and why they are what they are."""
    load = _read(await request.body())
    database: Database = request.state.database
    # what was deleted at this moment, the region itself or a backend, is not among what is reported next
    with suppress(IntegrityError):
        async with database.transaction() as session:
            await repository.store_loads(session, caller.name, load)
    return Response(status_code=204)


def _read(body: bytes) -> RegionLoad:
    try:
        load = _decoder.decode(body)
    except UNREADABLE as error:
        raise InvalidError([FieldError("body", what_is_wrong(error))]) from None
    if len(load.node) > MAX_TEXT or "\0" in load.node:
        raise InvalidError([FieldError("node", f"at most {MAX_TEXT} characters, no NUL")])
    if len(load.backends) > MAX_BACKENDS:
        raise InvalidError([FieldError("backends", f"at most {MAX_BACKENDS}")])
    for place, one in enumerate(load.backends):
        texts = (one.backend, one.policy, one.reason, one.decided_by, one.signal or "")
        times = (one.since, one.decided_at)
        if any(len(text) > MAX_TEXT or "\0" in text for text in texts) or len(one.classes) > MAX_CLASSES:
            raise InvalidError([FieldError(f"backends[{place}]", "a member is too long")])
        if not all(math.isfinite(time) and 0 <= time < LATEST_S for time in times):
            raise InvalidError([FieldError(f"backends[{place}].since", "is no instant")])
        if not 0 <= one.reporters <= MAX_COUNT:
            raise InvalidError([FieldError(f"backends[{place}].reporters", "is out of range")])
        if any(abs(kind.priority) > MAX_COUNT for kind in one.classes):
            raise InvalidError([FieldError(f"backends[{place}].classes", "a priority is out of range")])
    return load
