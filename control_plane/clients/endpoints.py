"""``/v1/clients`` with overrides and resets."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from control_plane.access.principals import Caller, by_method
from control_plane.clients.models import ClientRow
from control_plane.clients.repository import covered_by
from control_plane.clients.schemas import (
    ClientCreate,
    ClientReplace,
    ClientView,
    OverrideReplace,
    OverrideView,
    ResetRequest,
    Status,
)
from control_plane.clients.service import Clients, Overrides
from control_plane.database import Reading
from control_plane.orm import equal
from control_plane.publishing.writer import Changing, Creating
from control_plane.resources import same_name
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import ClientName, Name, Text
from control_plane.web.pages import Listing, Page, Prefix, sorted_by

router = APIRouter(prefix="/v1/clients", tags=["clients"], dependencies=[Depends(by_method)])
_clients = Clients()


@router.get("")
async def list_clients(
    session: Reading,
    caller: Caller,
    page: Annotated[Page, sorted_by("client", "plan", "status", "external_id", "created_at")],
    prefix: Prefix = None,
    plan: Name | None = None,
    status: Status | None = None,
    external_id: Annotated[Text | None, Query()] = None,
) -> Listing[ClientView]:
    """Clients, all or those of a plan, status or external id; for scoped roles those that these are for."""
    where = covered_by(caller.grants) + equal(
        (ClientRow.plan, plan), (ClientRow.status, status), (ClientRow.external_id, external_id)
    )
    return await _clients.list_page(session, page, prefix=prefix, where=where)


@router.post("", status_code=201, response_model=ClientView)
async def create_client(body: ClientCreate, change: Creating) -> Response:
    """Add a client."""
    async with change.begin() as write:
        view = await _clients.create(write, body.client, body)
    return await change.answer(view, 201, location=f"/v1/clients/{body.client}")


@router.get("/{client}", response_model=ClientView)
async def get_client(client: ClientName, session: Reading) -> Response:
    """One client."""
    return json_with_etag(await _clients.get(session, client))


@router.put("/{client}", response_model=ClientView, responses={201: {"model": ClientView}})
async def put_client(client: ClientName, body: ClientReplace, change: Changing) -> Response:
    """Add or replace a client; its keys and counts stay, and overrides as far as they fit its plan."""
    same_name(client, body.client, "client")
    async with change.begin() as write:
        view, made = await _clients.replace(write, client, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{client}", status_code=204)
async def delete_client(client: ClientName, change: Changing) -> Response:
    """Remove a client with its keys and overrides."""
    async with change.begin() as write:
        await _clients.delete(write, client, change.preconditions)
    return await change.answer(None, 204)


@router.post("/{client}/reset", response_model=ClientView)
async def reset_client(client: ClientName, body: ResetRequest, change: Changing) -> Response:  # noqa: ARG001  # so that an unknown field is refused
    """Start the client's counts afresh in every region."""
    async with change.begin() as write:
        view = await _clients.reset(write, client, change.preconditions)
    return await change.answer(view, 200)


@router.get("/{client}/overrides")
async def list_overrides(
    client: ClientName,
    session: Reading,
    page: Annotated[Page, sorted_by("limit", "expires_at")],
    prefix: Prefix = None,
) -> Listing[OverrideView]:
    """A client's overrides by limit."""
    return await Overrides(await _clients.row(session, client)).list_page(session, page, prefix=prefix)


@router.get("/{client}/overrides/{limit}", response_model=OverrideView)
async def get_override(client: ClientName, limit: Name, session: Reading) -> Response:
    """One override."""
    return json_with_etag(await Overrides(await _clients.row(session, client)).get(session, limit))


@router.put("/{client}/overrides/{limit}", response_model=OverrideView, responses={201: {"model": OverrideView}})
async def put_override(client: ClientName, limit: Name, body: OverrideReplace, change: Changing) -> Response:
    """Give a client its own figures for one limit of its plan."""
    async with change.begin() as write:
        overrides = Overrides(await _clients.row(write.session, client))
        view, made = await overrides.replace(write, limit, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{client}/overrides/{limit}", status_code=204)
async def delete_override(client: ClientName, limit: Name, change: Changing) -> Response:
    """Go back to the plan's figures."""
    async with change.begin() as write:
        overrides = Overrides(await _clients.row(write.session, client))
        await overrides.delete(write, limit, change.preconditions)
    return await change.answer(None, 204)
