"""``/v1/limits``: limits outside plans."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from sqlalchemy import ColumnElement

from control_plane.access.principals import by_method
from control_plane.database import Reading
from control_plane.limits.models import LimitRow
from control_plane.limits.schemas import LimitCreate, LimitReplace, LimitView
from control_plane.limits.service import OutsideLimits
from control_plane.orm import equal
from control_plane.publishing.writer import Changing, Creating
from control_plane.resources import same_name
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by
from tidegate.contract.limits import Algorithm, Mode


def _wanted(
    algorithm: Algorithm | None = None,
    mode: Mode | None = None,
    shadow: bool | None = None,
    adaptive: Name | None = None,
) -> list[ColumnElement[bool]]:
    return equal(
        (LimitRow.algorithm, algorithm),
        (LimitRow.mode, mode),
        (LimitRow.shadow, shadow),
        (LimitRow.adaptive, adaptive),
    )


LimitFilter = Annotated[list[ColumnElement[bool]], Depends(_wanted)]
LimitPages = Annotated[Page, sorted_by("name", "limit", "priority", "algorithm")]

router = APIRouter(prefix="/v1/limits", tags=["limits outside plans"], dependencies=[Depends(by_method)])
_limits = OutsideLimits()


@router.get("")
async def list_limits(
    session: Reading, page: LimitPages, wanted: LimitFilter, prefix: Prefix = None
) -> Listing[LimitView]:
    """Limits outside plans."""
    return await _limits.list_page(session, page, prefix=prefix, where=wanted)


@router.post("", status_code=201, response_model=LimitView)
async def create_limit(body: LimitCreate, change: Creating) -> Response:
    """Add a limit outside plans."""
    async with change.begin() as write:
        view = await _limits.create(write, body.name, body)
    return await change.answer(view, 201, location=f"/v1/limits/{body.name}")


@router.get("/{limit}", response_model=LimitView)
async def get_limit(limit: Name, session: Reading) -> Response:
    """One limit outside plans."""
    return json_with_etag(await _limits.get(session, limit))


@router.put("/{limit}", response_model=LimitView, responses={201: {"model": LimitView}})
async def put_limit(limit: Name, body: LimitReplace, change: Changing) -> Response:
    """Add or replace a limit outside plans."""
    same_name(limit, body.name, "name")
    async with change.begin() as write:
        view, made = await _limits.replace(write, limit, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{limit}", status_code=204)
async def delete_limit(limit: Name, change: Changing) -> Response:
    """Remove a limit outside plans."""
    async with change.begin() as write:
        await _limits.delete(write, limit, change.preconditions)
    return await change.answer(None, 204)
