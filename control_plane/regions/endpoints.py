"""``/v1/regions``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from control_plane.access.principals import Caller, by_method, require
from control_plane.database import Reading
from control_plane.publishing.writer import Changing, Creating
from control_plane.regions.schemas import RegionCreate, RegionReplace, RegionView
from control_plane.regions.service import Regions
from control_plane.resources import same_name
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by

router = APIRouter(prefix="/v1/regions", tags=["regions"], dependencies=[Depends(by_method)])
_regions = Regions()


@router.get("")
async def list_regions(
    session: Reading, page: Annotated[Page, sorted_by("region")], prefix: Prefix = None
) -> Listing[RegionView]:
    """Regions by name."""
    return await _regions.list_page(session, page, prefix=prefix)


@router.post("", status_code=201, response_model=RegionView)
async def create_region(body: RegionCreate, change: Creating) -> Response:
    """Add a region; limits without explicit quotas are split anew."""
    async with change.begin() as write:
        view = await _regions.create(write, body.region, body)
    return await change.answer(view, 201, location=f"/v1/regions/{body.region}")


@router.get("/{region}", response_model=RegionView)
async def get_region(region: Name, session: Reading) -> Response:
    """One region."""
    return json_with_etag(await _regions.get(session, region))


@router.put("/{region}", response_model=RegionView, responses={201: {"model": RegionView}})
async def put_region(region: Name, body: RegionReplace, caller: Caller, change: Changing) -> Response:
    """Add or replace a region."""
    same_name(region, body.region, "region")
    if body.credential is not None:
        require(caller, "admin")
    async with change.begin() as write:
        view, made = await _regions.replace(write, region, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{region}", status_code=204)
async def delete_region(region: Name, change: Changing) -> Response:
    """Remove a region that no explicit quota names."""
    async with change.begin() as write:
        await _regions.delete(write, region, change.preconditions)
    return await change.answer(None, 204)
