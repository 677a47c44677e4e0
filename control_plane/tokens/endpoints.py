"""``/v1/tokens``: for admins only."""

import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from contract.credentials import RANDOM_BYTES
from control_plane.access.principals import admin_only
from control_plane.reading import Reading, shown
from control_plane.rollout.changes import Changing
from control_plane.tokens import repository, service
from control_plane.tokens.schemas import TokenCreate, TokenCreated, TokenView
from control_plane.web.pages import Listing, PageQuery, listing

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], dependencies=[Depends(admin_only)])
TokenId = Annotated[str, Path(pattern=r"^tok_[0-9a-z]{1,32}$")]


@router.get("")
async def list_tokens(session: Reading, page: PageQuery) -> Listing[TokenView]:
    """Tokens that are not revoked, by id."""
    return listing(await repository.live.page(session, page), page, lambda row: row.token_id, service.view)


@router.post("", status_code=201, response_model=TokenCreated)
async def create_token(body: TokenCreate, change: Changing) -> Response:
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
    return shown(service.view(row))


@router.delete("/{token_id}", status_code=204)
async def revoke_token(token_id: TokenId, change: Changing) -> Response:
    """Revoke a token."""
    async with change.begin() as write:
        await service.revoke(write, token_id, datetime.now(UTC))
    return await change.answer(None, 204)
