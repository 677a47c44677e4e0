"""``/v1/blocks``: who is refused at once, everywhere."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from sqlalchemy import cast
from sqlalchemy.dialects.postgresql import INET

from control_plane.access.principals import by_method
from control_plane.blocks.models import BlockRow
from control_plane.blocks.schemas import BlockCreate, BlockReplace, BlockView, KeyId
from control_plane.blocks.service import Blocks, network_at
from control_plane.database import Reading
from control_plane.orm import equal
from control_plane.publishing.writer import Changing, Creating
from control_plane.resources import same_name
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import ClientName, Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by
from tidegate.contract.blocks import ReasonClass

router = APIRouter(prefix="/v1/blocks", tags=["blocks"], dependencies=[Depends(by_method)])
_blocks = Blocks()


@router.get("")
async def list_blocks(
    session: Reading,
    page: Annotated[Page, sorted_by("block", "created_at", "expires_at")],
    prefix: Prefix = None,
    client: ClientName | None = None,
    key_id: KeyId | None = None,
    ip: Annotated[
        str | None,
        Query(min_length=2, max_length=64, description="an address or a CIDR block: blocks of networks that hold it"),
    ] = None,
    endpoint: Name | None = None,
    reason_class: ReasonClass | None = None,
) -> Listing[BlockView]:
    """Blocks, all or those of a client, a key, an address, an endpoint or a class of reasons."""
    where = equal(
        (BlockRow.client, client),
        (BlockRow.key_id, key_id),
        (BlockRow.endpoint, endpoint),
        (BlockRow.reason_class, reason_class),
    )
    if ip is not None:
        where.append(cast(BlockRow.network, INET).op(">>=", is_comparison=True)(cast(network_at(ip), INET)))
    return await _blocks.list_page(session, page, prefix=prefix, where=where)


@router.post("", status_code=201, response_model=BlockView)
async def create_block(body: BlockCreate, change: Creating) -> Response:
    """Refuse a client, a key, a network or an endpoint from now on, with 403 and `error: "blocked"`."""
    name = body.block or f"blk-{secrets.token_hex(8)}"
    async with change.begin(urgent=True) as write:
        view = await _blocks.create(write, name, body)
    return await change.answer(view, 201, location=f"/v1/blocks/{name}")


@router.get("/{block}", response_model=BlockView)
async def get_block(block: Name, session: Reading) -> Response:
    """One block."""
    return json_with_etag(await _blocks.get(session, block))


@router.put("/{block}", response_model=BlockView, responses={201: {"model": BlockView}})
async def put_block(block: Name, body: BlockReplace, change: Changing) -> Response:
    """Add or replace a block."""
    same_name(block, body.block, "block")
    async with change.begin(urgent=True) as write:
        view, made = await _blocks.replace(write, block, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{block}", status_code=204)
async def delete_block(block: Name, change: Changing) -> Response:
    """Lift a block."""
    async with change.begin(urgent=True) as write:
        await _blocks.delete(write, block, change.preconditions)
    return await change.answer(None, 204)
