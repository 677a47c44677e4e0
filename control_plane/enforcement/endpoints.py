"""``/v1/enforcement``: all limits, or one, into shadow or enforced for a while."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.database import Reading
from control_plane.enforcement.models import EnforcementRow
from control_plane.enforcement.schemas import EnforcementReplace, EnforcementView
from control_plane.enforcement.service import EnforcementOverrides
from control_plane.limits.service import limit_row
from control_plane.orm import equal
from control_plane.publishing.writer import Change, Changing
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by
from tidegate.contract.blocks import EVERY_LIMIT
from tidegate.contract.usage import OUTSIDE_PLANS

router = APIRouter(prefix="/v1/enforcement", tags=["enforcement"], dependencies=[Depends(by_method)])
_overrides = EnforcementOverrides()


@router.get("")
async def list_enforcement_overrides(
    session: Reading,
    page: Annotated[Page, sorted_by("target", "set_at", "expires_at")],
    prefix: Prefix = None,
    mode: Literal["enforce", "shadow"] | None = None,
) -> Listing[EnforcementView]:
    """Every enforcement override; with none, each limit does what its `shadow` says."""
    return await _overrides.list_page(session, page, prefix=prefix, where=equal((EnforcementRow.mode, mode)))


@router.put("", response_model=EnforcementView, responses={201: {"model": EnforcementView}})
async def put_enforcement_of_all(body: EnforcementReplace, change: Changing) -> Response:
    """Put all limits into shadow, or enforce all of them, until `expires_at`."""
    return await _put(change, EVERY_LIMIT, body, None)


@router.delete("", status_code=204)
async def delete_enforcement_of_all(change: Changing) -> Response:
    """End the enforcement override of all limits."""
    return await _delete(change, EVERY_LIMIT)


@router.get("/{limit}", response_model=EnforcementView)
async def get_enforcement_outside_plans(limit: Name, session: Reading) -> Response:
    """The enforcement override of a limit outside plans."""
    return json_with_etag(await _overrides.get(session, f"{OUTSIDE_PLANS}/{limit}"))


@router.put("/{limit}", response_model=EnforcementView, responses={201: {"model": EnforcementView}})
async def put_enforcement_outside_plans(limit: Name, body: EnforcementReplace, change: Changing) -> Response:
    """Put one limit outside plans into shadow, or enforce it."""
    return await _put(change, f"{OUTSIDE_PLANS}/{limit}", body, (None, limit))


@router.delete("/{limit}", status_code=204)
async def delete_enforcement_outside_plans(limit: Name, change: Changing) -> Response:
    """End the enforcement override of a limit outside plans."""
    return await _delete(change, f"{OUTSIDE_PLANS}/{limit}")


@router.get("/{plan}/{limit}", response_model=EnforcementView)
async def get_enforcement_of_plan_limit(plan: Name, limit: Name, session: Reading) -> Response:
    """The enforcement override of a plan's limit."""
    return json_with_etag(await _overrides.get(session, f"{plan}/{limit}"))


@router.put("/{plan}/{limit}", response_model=EnforcementView, responses={201: {"model": EnforcementView}})
async def put_enforcement_of_plan_limit(
    plan: Name, limit: Name, body: EnforcementReplace, change: Changing
) -> Response:
    """Put one limit of a plan into shadow, or enforce it."""
    return await _put(change, f"{plan}/{limit}", body, (plan, limit))


@router.delete("/{plan}/{limit}", status_code=204)
async def delete_enforcement_of_plan_limit(plan: Name, limit: Name, change: Changing) -> Response:
    """End the enforcement override of a plan's limit."""
    return await _delete(change, f"{plan}/{limit}")


async def _put(change: Change, target: str, body: EnforcementReplace, limit: tuple[str | None, str] | None) -> Response:
    async with change.begin(urgent=True) as write:
        if limit is not None:
            await limit_row(write.session, *limit)
        view, made = await _overrides.replace(write, target, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


async def _delete(change: Change, target: str) -> Response:
    async with change.begin(urgent=True) as write:
        await _overrides.delete(write, target, change.preconditions)
    return await change.answer(None, 204)
