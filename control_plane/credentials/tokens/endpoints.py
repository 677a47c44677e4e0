"""``/v1/tokens``: for admins only."""

import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from control_plane.access.principals import TokenRole, admin_only
from control_plane.credentials.rotation import Rotation
from control_plane.credentials.tokens import repository, service
from control_plane.credentials.tokens.schemas import TokenCreate, TokenCreated, TokenRotate, TokenView
from control_plane.database import Reading
from control_plane.publishing.writer import Changing, Creating
from control_plane.web.etags import json_with_etag
from control_plane.web.pages import Listing, Page, sorted_by
from tidegate.contract.credentials import RANDOM_BYTES

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], dependencies=[Depends(admin_only)])
TokenId = Annotated[str, Path(pattern=r"^tok_[0-9a-z]{1,32}$")]


@router.get("")
async def list_tokens(
    session: Reading,
    page: Annotated[Page, sorted_by("token_id", "name", "role", "created_at", "expires_at", "last_used")],
    role: TokenRole | None = None,
) -> Listing[TokenView]:
    """Tokens that are not revoked."""
    return await repository.live.listing(session, page, service.view, where=repository.of_role(role))


@router.post("", status_code=201, response_model=TokenCreated)
async def create_token(body: TokenCreate, change: Creating) -> Response:
    """Issue a token. The secret is shown in this answer and never again."""
    token_id = f"tok_{secrets.token_hex(8)}"
    async with change.begin() as write:
        view = await service.create(write, body, token_id=token_id, random=secrets.token_bytes(RANDOM_BYTES))
    return await change.answer(view, 201, location=f"/v1/tokens/{token_id}", secret=True)


@router.get("/{token_id}", response_model=TokenView)
async def get_token(token_id: TokenId, session: Reading) -> Response:
    """One token."""
    row = await repository.live.find(session, token_id)
    if row is None:
        raise service.missing(token_id)
    return json_with_etag(service.view(row))


@router.delete("/{token_id}", status_code=204)
async def revoke_token(token_id: TokenId, change: Changing) -> Response:
    """Revoke a token."""
    async with change.begin(urgent=True) as write:
        await service.revoke(write, token_id, change.preconditions, datetime.now(UTC))
    return await change.answer(None, 204)


@router.post("/{token_id}/rotate", response_model=TokenCreated)
async def rotate_token(token_id: TokenId, body: TokenRotate, change: Changing) -> Response:
    """Give a token a new secret, shown this once; the one before it works for `overlap_s` more seconds."""
    async with change.begin(urgent=True) as write:
        view = await service.rotate(write, token_id, Rotation.beginning_now(body.overlap_s), change.preconditions)
    return await change.answer(view, 200, secret=True)
