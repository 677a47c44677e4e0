"""``/v1/endpoints`` and ``/v1/backends``."""

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.resources import same_name
from control_plane.rollout.changes import Changing, Reading, shown
from control_plane.routes.schemas import (
    BackendCreate,
    BackendReplace,
    BackendView,
    EndpointCreate,
    EndpointReplace,
    EndpointView,
)
from control_plane.routes.service import Backends, Endpoints
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, PageQuery

router = APIRouter(prefix="/v1", tags=["route table"], dependencies=[Depends(by_method)])
_backends = Backends()
_endpoints = Endpoints()


@router.get("/backends")
async def list_backends(session: Reading, page: PageQuery) -> Listing[BackendView]:
    """Backends by name."""
    return await _backends.list_page(session, page)


@router.post("/backends", status_code=201, response_model=BackendView)
async def create_backend(body: BackendCreate, change: Changing) -> Response:
    """Add a backend."""
    async with change.begin() as write:
        view = await _backends.create(write, body.backend, body)
    return await change.answer(view, 201, location=f"/v1/backends/{body.backend}")


@router.get("/backends/{backend}", response_model=BackendView)
async def get_backend(backend: Name, session: Reading) -> Response:
    """One backend."""
    return shown(await _backends.get(session, backend))


@router.put("/backends/{backend}", response_model=BackendView, responses={201: {"model": BackendView}})
async def put_backend(backend: Name, body: BackendReplace, change: Changing) -> Response:
    """Add or replace a backend."""
    same_name(backend, body.backend, "backend")
    async with change.begin() as write:
        view, made = await _backends.replace(write, backend, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/backends/{backend}", status_code=204)
async def delete_backend(backend: Name, change: Changing) -> Response:
    """Remove a backend that serves no endpoint."""
    async with change.begin() as write:
        await _backends.delete(write, backend, change.preconditions)
    return await change.answer(None, 204)


@router.get("/endpoints")
async def list_endpoints(session: Reading, page: PageQuery) -> Listing[EndpointView]:
    """Endpoints by name."""
    return await _endpoints.list_page(session, page)


@router.post("/endpoints", status_code=201, response_model=EndpointView)
async def create_endpoint(body: EndpointCreate, change: Changing) -> Response:
    """Add an endpoint."""
    async with change.begin() as write:
        view = await _endpoints.create(write, body.endpoint, body)
    return await change.answer(view, 201, location=f"/v1/endpoints/{body.endpoint}")


@router.get("/endpoints/{endpoint}", response_model=EndpointView)
async def get_endpoint(endpoint: Name, session: Reading) -> Response:
    """One endpoint."""
    return shown(await _endpoints.get(session, endpoint))


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
