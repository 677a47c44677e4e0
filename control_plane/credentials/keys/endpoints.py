"""``/v1/clients/{client}/keys``, ``/v1/keys``, and ``POST /v1/keys/import``: a JSON object a line."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.clients import imports, repository
from control_plane.clients.import_endpoints import Importing, lines_body
from control_plane.clients.models import KeyRow
from control_plane.clients.schemas import ImportResult
from control_plane.clients.service import Clients
from control_plane.credentials.keys import imports as key_imports
from control_plane.credentials.keys import service as keys
from control_plane.credentials.keys.schemas import KeyCreate, KeyCreated, KeyImport, KeyRotate, KeyView
from control_plane.credentials.rotation import Rotation
from control_plane.database import Reading
from control_plane.orm import equal
from control_plane.publishing.writer import Changing, Creating
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import ClientName, Text
from control_plane.web.pages import Listing, Page, sorted_by
from tidegate.contract.credentials import RANDOM_BYTES

router = APIRouter(prefix="/v1", tags=["keys"], dependencies=[Depends(by_method)])
_clients = Clients()
_Keys = Annotated[Page, sorted_by("key_id", "name", "created_at", "expires_at", "last_used")]
KeyId = Annotated[str, Path(pattern=r"^key_[0-9a-f]{16}$")]


@router.get("/keys")
async def find_keys(
    session: Reading,
    page: _Keys,
    prefix: Annotated[
        str,
        Query(min_length=3, max_length=16, pattern=r"^[!-~]+$", description="how the secret begins; never all of it"),
    ],
) -> Listing[KeyView]:
    """Keys whose secret begins like this."""
    return await repository.keys_by_prefix(prefix).listing(session, page, keys.view)


@router.get("/clients/{client}/keys")
async def list_keys(
    client: ClientName, session: Reading, page: _Keys, name: Annotated[Text | None, Query()] = None
) -> Listing[KeyView]:
    """A client's keys, all or those of a name."""
    await _clients.row(session, client)
    where = equal((KeyRow.name, name))
    return await repository.keys_of(client).listing(session, page, keys.view, where=where)


@router.post("/clients/{client}/keys", status_code=201, response_model=KeyCreated)
async def create_key(
    client: ClientName,
    body: KeyCreate,
    change: Creating,
) -> Response:
    """Give a client a key. The secret is shown in this answer and never again."""
    key_id = f"key_{secrets.token_hex(8)}"
    async with change.begin() as write:
        await _clients.row(write.session, client)
        view = await keys.create(
            write,
            client,
            body,
            key_id=key_id,
            random=secrets.token_bytes(RANDOM_BYTES),
        )
    return await change.answer(view, 201, location=f"/v1/clients/{client}/keys/{key_id}", secret=True)


@router.get("/clients/{client}/keys/{key_id}", response_model=KeyView)
async def get_key(client: ClientName, key_id: KeyId, session: Reading) -> Response:
    """One key."""
    row = await repository.keys_of(client).find(session, key_id)
    if row is None:
        raise keys.missing(client, key_id)
    return json_with_etag(keys.view(row))


@router.delete("/clients/{client}/keys/{key_id}", status_code=204)
async def revoke_key(client: ClientName, key_id: KeyId, change: Changing) -> Response:
    """Revoke a key."""
    async with change.begin(urgent=True) as write:
        await keys.revoke(write, client, key_id, change.preconditions)
    return await change.answer(None, 204)


@router.post("/clients/{client}/keys/{key_id}/rotate", status_code=201, response_model=KeyCreated)
async def rotate_key(client: ClientName, key_id: KeyId, body: KeyRotate, change: Changing) -> Response:
    """Make a key in place of this one, which works for `overlap_s` more seconds. The secret is shown this once."""
    new_key_id = f"key_{secrets.token_hex(8)}"
    async with change.begin(urgent=True) as write:
        view = await keys.rotate(
            write,
            client,
            key_id,
            body,
            change.preconditions,
            new_key_id=new_key_id,
            rotation=Rotation.beginning_now(body.overlap_s),
        )
    return await change.answer(view, 201, location=f"/v1/clients/{client}/keys/{new_key_id}", secret=True)


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
