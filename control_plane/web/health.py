"""``/healthz`` and ``/readyz``: for whoever starts, restarts and balances replicas."""

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from control_plane.errors import UnavailableError
from control_plane.metrics import CONTENT_TYPE
from control_plane.web import problems
from control_plane.web.fields import View

router = APIRouter(tags=["health"])


class Health(View):
    """Well."""

    status: Literal["ok"] = "ok"


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """What this replica counts of itself, for Prometheus."""
    return Response(request.state.metrics.render(), media_type=CONTENT_TYPE)


@router.get("/healthz")
async def healthz() -> Health:
    """The process is alive."""
    return Health()


@router.get("/readyz", response_model=Health, responses={503: {"description": "Not ready; `detail` says why."}})
async def readyz(request: Request) -> Response:
    """The database can be reached, its schema serves this version, and this replica is not shutting down."""
    try:
        fault = await request.state.readiness()
    except UnavailableError as error:
        fault = str(error)
    return JSONResponse({"status": "ok"}) if fault is None else problems.problem(503, fault)
