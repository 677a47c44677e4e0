"""``/v1/blocks``: who is refused at once, everywhere."""

import secrets

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.blocks.schemas import BlockCreate, BlockReplace, BlockView
from control_plane.blocks.service import Blocks
from control_plane.reading import Reading, shown
from control_plane.resources import same_name
from control_plane.rollout.changes import Changing, Creating
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, PageQuery

router = APIRouter(prefix="/v1/blocks", tags=["blocks"], dependencies=[Depends(by_method)])
_blocks = Blocks()


@router.get("")
async def list_blocks(session: Reading, page: PageQuery) -> Listing[BlockView]:
    """Blocks by name."""
    return await _blocks.list_page(session, page)


@router.post("", status_code=201, response_model=BlockView)
async def create_block(body: BlockCreate, change: Creating) -> Response:
    """Refuse a client, a key, a network or an endpoint from now on, with 403 and `error: "blocked"`."""
    name = body.block or f"blk-{secrets.token_hex(8)}"
    async with change.begin() as write:
        view = await _blocks.create(write, name, body)
    return await change.answer(view, 201, location=f"/v1/blocks/{name}")


@router.get("/{block}", response_model=BlockView)
async def get_block(block: Name, session: Reading) -> Response:
    """One block."""
    return shown(await _blocks.get(session, block))


@router.put("/{block}", response_model=BlockView, responses={201: {"model": BlockView}})
async def put_block(block: Name, body: BlockReplace, change: Changing) -> Response:
    """Add or replace a block."""
    same_name(block, body.block, "block")
    async with change.begin() as write:
        view, made = await _blocks.replace(write, block, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{block}", status_code=204)
async def delete_block(block: Name, change: Changing) -> Response:
    """Lift a block."""
    async with change.begin() as write:
        await _blocks.delete(write, block, change.preconditions)
    return await change.answer(None, 204)
