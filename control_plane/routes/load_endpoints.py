"""``/internal/v1/load``: what a region's deciding node says of its backends, with the region's credential."""

from contextlib import suppress

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy.exc import IntegrityError

from control_plane.access.principals import Caller, region_only
from control_plane.database import Database
from control_plane.routes import repository
from control_plane.web.messages import body_of, decoded
from tidegate.contract.load import RegionLoad

router = APIRouter(prefix="/internal/v1", tags=["nodes"], dependencies=[Depends(region_only)])
_decoder = msgspec.json.Decoder(RegionLoad)


@router.post("/load", status_code=204, openapi_extra=body_of(RegionLoad))
async def report_load(request: Request, caller: Caller) -> Response:
    """A region's factors, and why they are what they are."""
    load = decoded(_decoder, await request.body())
    database: Database = request.state.database
    # what was deleted at this moment, the region itself or a backend, is not among what is reported next
    with suppress(IntegrityError):
        async with database.transaction() as session:
            await repository.store_loads(session, caller.name, load)
    return Response(status_code=204)
