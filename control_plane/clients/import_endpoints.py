"""``POST /v1/clients/import``: thousands at once, a JSON object a line."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.clients import imports
from control_plane.clients.schemas import ClientCreate, ImportResult
from control_plane.errors import FieldError, InvalidError
from control_plane.publishing.writer import Change, Creating
from control_plane.replays.service import HEADER

router = APIRouter(prefix="/v1", tags=["imports"], dependencies=[Depends(by_method)])


def lines_body(example: str) -> dict[str, Any]:
    """The body of an import in OpenAPI."""
    content = {"application/x-ndjson": {"schema": {"type": "string"}, "example": example}}
    return {"requestBody": {"required": False, "content": content}}  # no line is no fault: nothing changes


def _without_replay(request: Request, change: Creating) -> Change:
    # it would have to keep the whole body; and what is there already changes nothing anyway
    if HEADER in request.headers:
        raise InvalidError([FieldError(HEADER, "imports need none: the same lines again change nothing")])
    return change


Importing = Annotated[Change, Depends(_without_replay)]
"""A write that an import makes, a part of its lines at a time."""


@router.post(
    "/clients/import",
    response_model=ImportResult,
    openapi_extra=lines_body('{"client": "acme", "plan": "free"}\n{"client": "globex", "plan": "pro"}\n'),
)
async def import_clients(request: Request, change: Importing) -> Response:
    """Make or change clients, one a line with the members of `POST /v1/clients`.

    Lines that are wrong are refused by number; the others are taken, 2,000 to a revision. Sent again they change
    nothing. For all or nothing there is `PUT /v1/config`.
    """
    view = await imports.run(request.stream(), ClientCreate, imports.store_clients, change)
    return await change.answer(view, 200)
