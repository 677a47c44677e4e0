"""``POST /v1/clients/import`` and ``POST /v1/keys/import``: thousands at once, a JSON object a line."""

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.clients import imports
from control_plane.clients.schemas import ClientCreate, ImportResult, KeyImport
from control_plane.errors import FieldError, InvalidError
from control_plane.replays.service import HEADER
from control_plane.rollout.changes import Change, Creating

router = APIRouter(prefix="/v1", tags=["imports"], dependencies=[Depends(by_method)])


def _body_of(example: str) -> dict[str, Any]:
    content = {"application/x-ndjson": {"schema": {"type": "string"}, "example": example}}
    return {"requestBody": {"required": False, "content": content}}  # no line is no fault: nothing changes


def _without_replay(request: Request, change: Creating) -> Change:
    # it would have to keep the whole body; and what is there already changes nothing anyway
    if HEADER in request.headers:
        raise InvalidError([FieldError(HEADER, "imports need none: the same lines again change nothing")])
    return change


Importing = Annotated[Change, Depends(_without_replay)]


@router.post(
    "/clients/import",
    response_model=ImportResult,
    openapi_extra=_body_of('{"client": "acme", "plan": "free"}\n{"client": "globex", "plan": "pro"}\n'),
)
async def import_clients(request: Request, change: Importing) -> Response:
    """Make or change clients, one a line with the members of `POST /v1/clients`.

    Lines that are wrong are refused by number; the others are taken, 2,000 to a revision. Sent again they change
    nothing. For all or nothing there is `PUT /v1/config`.
    """
    view = await imports.run(request.stream(), ClientCreate, imports.store_clients, change)
    return await change.answer(view, 200)


@router.post(
    "/keys/import",
    response_model=ImportResult,
    openapi_extra=_body_of('{"client": "acme", "secret_sha256": "' + "0" * 64 + '", "name": "old"}\n'),
)
async def import_keys(request: Request, change: Importing) -> Response:
    """Take in existing keys, one a line: `client` and either `secret` or `secret_sha256`; `name`, `expires_at`.

    Only hashes are kept. Lines that are wrong are refused by number; a key that its client has already changes nothing.
    """
    store = imports.store_keys(lambda: f"key_{secrets.token_hex(8)}")
    view = await imports.run(request.stream(), KeyImport, store, change)
    return await change.answer(view, 200)
