"""``/v1/endpoints`` and ``/v1/backends``; and the factors of a region's backends, which its agent sends."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy.exc import IntegrityError

from control_plane.access.principals import Caller, by_method, region_only
from control_plane.database import Database, Reading
from control_plane.orm import equal
from control_plane.publishing.writer import Changing, Creating
from control_plane.resources import same_name
from control_plane.routes import factors, repository
from control_plane.routes.models import BackendRow, EndpointRow
from control_plane.routes.schemas import (
    BackendCreate,
    BackendDetail,
    BackendReplace,
    BackendView,
    EndpointCreate,
    EndpointReplace,
    EndpointView,
    ManualFactorReplace,
    ManualFactorView,
)
from control_plane.routes.service import Backends, Endpoints
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.messages import body_of, decoded
from control_plane.web.pages import Listing, Page, Prefix, sorted_by
from tidegate.contract.load import RegionLoad

router = APIRouter(prefix="/v1", tags=["route table"], dependencies=[Depends(by_method)])
load_router = APIRouter(prefix="/internal/v1", tags=["nodes"], dependencies=[Depends(region_only)])
_decoder = msgspec.json.Decoder(RegionLoad)
_backends = Backends()
_endpoints = Endpoints()


@router.get("/backends")
async def list_backends(
    session: Reading,
    page: Annotated[Page, sorted_by("backend", "adaptive")],
    prefix: Prefix = None,
    adaptive: Name | None = None,
) -> Listing[BackendView]:
    """Backends, all or those that a policy protects."""
    return await _backends.list_page(session, page, prefix=prefix, where=equal((BackendRow.adaptive, adaptive)))


@router.post("/backends", status_code=201, response_model=BackendDetail)
async def create_backend(body: BackendCreate, change: Creating) -> Response:
    """Add a backend."""
    async with change.begin() as write:
        view = await _backends.create(write, body.backend, body)
    detail = BackendDetail(**view.model_dump(), manual=None, factors=[])
    return await change.answer(detail, 201, location=f"/v1/backends/{body.backend}")


@router.get("/backends/{backend}", response_model=BackendDetail)
async def get_backend(backend: Name, session: Reading) -> Response:
    """One backend: with its manual factor, and its factor in each region and why it is that."""
    row = await _backends.row(session, backend)
    return json_with_etag(await factors.detail(session, row, _backends.view(row), datetime.now(UTC)))


@router.put("/backends/{backend}", response_model=BackendDetail, responses={201: {"model": BackendDetail}})
async def put_backend(backend: Name, body: BackendReplace, change: Changing) -> Response:
    """Add or replace a backend."""
    same_name(backend, body.backend, "backend")
    async with change.begin() as write:
        view, made = await _backends.replace(write, backend, body, change.preconditions)
        row = await _backends.row(write.session, backend)
        detail = await factors.detail(write.session, row, view, datetime.now(UTC))
    return await change.answer(detail, 201 if made else 200)


@router.delete("/backends/{backend}", status_code=204)
async def delete_backend(backend: Name, change: Changing) -> Response:
    """Remove a backend that serves no endpoint and that no reporter speaks for."""
    async with change.begin() as write:
        await _backends.delete(write, backend, change.preconditions)
    return await change.answer(None, 204)


@router.get("/backends/{backend}/factor", response_model=ManualFactorView)
async def get_manual_factor(backend: Name, session: Reading) -> Response:
    """The manual factor of a backend; 404 when there is none, or when it expired."""
    return json_with_etag(factors.require_manual(await _backends.row(session, backend), datetime.now(UTC)))


@router.put("/backends/{backend}/factor", response_model=ManualFactorView)
async def put_manual_factor(backend: Name, body: ManualFactorReplace, change: Changing) -> Response:
    """Override what load says, in every region, until `expires_at`: 1 lifts all cuts, 0.5 admits half. 409
    on a backend without an adaptive policy, where no factor is applied.
    """
    async with change.begin() as write:
        row = await _backends.row(write.session, backend)
        view = factors.set_manual(write, row, body, change.preconditions, datetime.now(UTC))
    return await change.answer(view, 200)


@router.delete("/backends/{backend}/factor", status_code=204)
async def delete_manual_factor(backend: Name, change: Changing) -> Response:
    """End the override: load decides again."""
    async with change.begin() as write:
        row = await _backends.row(write.session, backend)
        factors.clear_manual(write, row, change.preconditions, datetime.now(UTC))
    return await change.answer(None, 204)


@router.get("/endpoints")
async def list_endpoints(
    session: Reading,
    page: Annotated[Page, sorted_by("endpoint", "path", "backend", "cost")],
    prefix: Prefix = None,
    backend: Name | None = None,
    exempt: bool | None = None,
) -> Listing[EndpointView]:
    """Endpoints, all or those of a backend."""
    where = equal((EndpointRow.backend, backend), (EndpointRow.exempt, exempt))
    return await _endpoints.list_page(session, page, prefix=prefix, where=where)


@router.post("/endpoints", status_code=201, response_model=EndpointView)
async def create_endpoint(body: EndpointCreate, change: Creating) -> Response:
    """Add an endpoint."""
    async with change.begin() as write:
        view = await _endpoints.create(write, body.endpoint, body)
    return await change.answer(view, 201, location=f"/v1/endpoints/{body.endpoint}")


@router.get("/endpoints/{endpoint}", response_model=EndpointView)
async def get_endpoint(endpoint: Name, session: Reading) -> Response:
    """One endpoint."""
    return json_with_etag(await _endpoints.get(session, endpoint))


@router.put("/endpoints/{endpoint}", response_model=EndpointView, responses={201: {"model": EndpointView}})
async def put_endpoint(endpoint: Name, body: EndpointReplace, change: Changing) -> Response:
    """Add or replace an endpoint."""
    same_name(endpoint, body.endpoint, "endpoint")
    async with change.begin() as write:
        view, made = await _endpoints.replace(write, endpoint, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/endpoints/{endpoint}", status_code=204)
async def delete_endpoint(endpoint: Name, change: Changing) -> Response:
    """Remove an endpoint that no limit matches."""
    async with change.begin() as write:
        await _endpoints.delete(write, endpoint, change.preconditions)
    return await change.answer(None, 204)


@load_router.post("/load", status_code=204, openapi_extra=body_of(RegionLoad))
async def report_load(request: Request, caller: Caller) -> Response:
    """A region's factors, and why they are what they are."""
    load = decoded(_decoder, await request.body())
    database: Database = request.state.database
    # what was deleted at this moment, the region itself or a backend, is not among what is reported next
    with suppress(IntegrityError):
        async with database.transaction() as session:
            await repository.store_loads(session, caller.name, load)
    return Response(status_code=204)
