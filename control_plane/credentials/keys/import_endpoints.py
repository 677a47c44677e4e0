"""``POST /v1/keys/import``: thousands at once, a JSON object a line."""

import secrets

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.clients import imports
from control_plane.clients.import_endpoints import Importing, lines_body
from control_plane.clients.schemas import ImportResult
from control_plane.credentials.keys import imports as key_imports
from control_plane.credentials.keys.schemas import KeyImport

router = APIRouter(prefix="/v1", tags=["imports"], dependencies=[Depends(by_method)])


@router.post(
    "/keys/import",
    response_model=ImportResult,
    openapi_extra=lines_body('{"client": "acme", "secret_sha256": "' + "0" * 64 + '", "name": "old"}\n'),
)
async def import_keys(request: Request, change: Importing) -> Response:
    """Take in existing keys, one a line: `client` and either `secret` or `secret_sha256`; `name`, `expires_at`.

    Only hashes are kept. Lines that are wrong are refused by number; a key that its client has already changes nothing.
    """
    store = key_imports.store_keys(lambda: f"key_{secrets.token_hex(8)}")
    view = await imports.run(request.stream(), KeyImport, store, change)
    return await change.answer(view, 200)
