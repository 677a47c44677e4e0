"""``POST /v1/console/links``: an admin token becomes a link that logs in at the console, once."""

from datetime import UTC, datetime

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict

from control_plane.access.principals import Caller, reading_only
from control_plane.console.repository import LINK_LIVES
from control_plane.console.sessions import Sessions
from control_plane.errors import ForbiddenError
from control_plane.web.fields import View

router = APIRouter(prefix="/v1/console", tags=["console"])


class ConsoleLink(View):
    """A link to the console; whoever opens it first is logged in with the token that asked for it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/console/link/4f2a", "expires_at": "2030-01-31T12:15:00Z"}]}
    )

    path: str
    """To be appended to the address at which the control plane is reached."""
    expires_at: datetime


@router.post("/links", status_code=201, response_model=ConsoleLink, dependencies=[Depends(reading_only)])
async def create_console_link(request: Request, caller: Caller) -> Response:
    """Make a link that logs in at the console once, with this token's role, for a quarter of an hour."""
    if not caller.id:
        raise ForbiddenError("Links are made by tokens: people sign in at /console/login.")
    code = await Sessions(request.state.database).make_link(caller)
    view = ConsoleLink(path=f"/console/link/{code}", expires_at=datetime.now(UTC) + LINK_LIVES)
    return JSONResponse(view.model_dump(mode="json"), 201, {"Cache-Control": "no-store"})
