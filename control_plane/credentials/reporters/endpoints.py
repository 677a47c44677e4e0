"""``/v1/reporters``: who may report the load of which backends."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.credentials.reporters.models import ReporterBackend, ReporterRow
from control_plane.credentials.reporters.schemas import (
    ReporterCreate,
    ReporterCreated,
    ReporterReplace,
    ReporterRotate,
    ReporterView,
)
from control_plane.credentials.reporters.service import Reporters
from control_plane.credentials.rotation import Rotation
from control_plane.database import Reading
from control_plane.publishing.writer import Changing, Creating
from control_plane.resources import same_name
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by
from tidegate.contract.credentials import RANDOM_BYTES

router = APIRouter(prefix="/v1/reporters", tags=["adaptive limits"], dependencies=[Depends(by_method)])
_reporters = Reporters()


@router.get("")
async def list_reporters(
    session: Reading,
    page: Annotated[Page, sorted_by("reporter", "created_at")],
    prefix: Prefix = None,
    backend: Name | None = None,
) -> Listing[ReporterView]:
    """Reporters, all or those that speak for a backend."""
    where = [] if backend is None else [ReporterRow.backends.any(ReporterBackend.backend == backend)]
    return await _reporters.list_page(session, page, prefix=prefix, where=where)


@router.post("", status_code=201, response_model=ReporterCreated)
async def create_reporter(body: ReporterCreate, change: Creating) -> Response:
    """Add a reporter. Its credential is shown in this answer and never again."""
    async with change.begin() as write:
        view = await _reporters.issue(write, body.reporter, body, secrets.token_bytes(RANDOM_BYTES))
    return await change.answer(view, 201, location=f"/v1/reporters/{body.reporter}", secret=True)


@router.get("/{reporter}", response_model=ReporterView)
async def get_reporter(reporter: Name, session: Reading) -> Response:
    """One reporter."""
    return json_with_etag(await _reporters.get(session, reporter))


@router.put("/{reporter}", response_model=ReporterView)
async def put_reporter(reporter: Name, body: ReporterReplace, change: Changing) -> Response:
    """Replace the backends that a reporter speaks for; 404 when there is none: POST makes one, with its credential."""
    same_name(reporter, body.reporter, "reporter")
    async with change.begin() as write:
        view, _ = await _reporters.replace(write, reporter, body, change.preconditions)
    return await change.answer(view, 200)


@router.post("/{reporter}/credentials", status_code=201, response_model=ReporterCreated)
async def rotate_reporter_credential(reporter: Name, body: ReporterRotate, change: Changing) -> Response:
    """Give a reporter a new credential, shown this once; the one before works for `overlap_s` seconds more."""
    async with change.begin(urgent=True) as write:
        rotation = Rotation.beginning_now(body.overlap_s)
        view = await _reporters.rotate(write, reporter, rotation, change.preconditions)
    return await change.answer(view, 201, secret=True)


@router.delete("/{reporter}", status_code=204)
async def delete_reporter(reporter: Name, change: Changing) -> Response:
    """Remove a reporter; its last report ages out."""
    async with change.begin(urgent=True) as write:
        await _reporters.delete(write, reporter, change.preconditions)
    return await change.answer(None, 204)
