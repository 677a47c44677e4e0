"""``/v1/plans`` with each plan's limits, and ``/v1/limits``: limits outside plans."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from sqlalchemy import ColumnElement

from control_plane.access.principals import by_method
from control_plane.database import Reading
from control_plane.limits.models import LimitRow
from control_plane.limits.schemas import LimitCreate, LimitReplace, LimitView, PlanCreate, PlanReplace, PlanView
from control_plane.limits.service import OutsideLimits, PlanLimits, Plans
from control_plane.orm import equal
from control_plane.publishing.writer import Changing, Creating
from control_plane.resources import same_name
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by
from tidegate.contract.limits import Algorithm, Mode


def _wanted(
    algorithm: Algorithm | None = None,
    mode: Mode | None = None,
    shadow: bool | None = None,
    adaptive: Name | None = None,
) -> list[ColumnElement[bool]]:
    return equal(
        (LimitRow.algorithm, algorithm),
        (LimitRow.mode, mode),
        (LimitRow.shadow, shadow),
        (LimitRow.adaptive, adaptive),
    )


LimitFilter = Annotated[list[ColumnElement[bool]], Depends(_wanted)]
LimitPages = Annotated[Page, sorted_by("name", "limit", "priority", "algorithm")]

plans_router = APIRouter(prefix="/v1/plans", tags=["plans"], dependencies=[Depends(by_method)])
router = APIRouter(prefix="/v1/limits", tags=["limits outside plans"], dependencies=[Depends(by_method)])
_plans, _limits = Plans(), OutsideLimits()


@plans_router.get("")
async def list_plans(
    session: Reading, page: Annotated[Page, sorted_by("plan", "priority")], prefix: Prefix = None
) -> Listing[PlanView]:
    """Plans, all or those whose name begins like this."""
    return await _plans.list_page(session, page, prefix=prefix)


@plans_router.post("", status_code=201, response_model=PlanView)
async def create_plan(body: PlanCreate, change: Creating) -> Response:
    """Add a plan with its limits."""
    async with change.begin() as write:
        view = await _plans.create(write, body.plan, body)
    return await change.answer(view, 201, location=f"/v1/plans/{body.plan}")


@plans_router.get("/{plan}", response_model=PlanView)
async def get_plan(plan: Name, session: Reading) -> Response:
    """One plan with its limits."""
    return json_with_etag(await _plans.get(session, plan))


@plans_router.put("/{plan}", response_model=PlanView, responses={201: {"model": PlanView}})
async def put_plan(plan: Name, body: PlanReplace, change: Changing) -> Response:
    """Add or replace a plan; limits that are not in the list go."""
    same_name(plan, body.plan, "plan")
    async with change.begin() as write:
        view, made = await _plans.replace(write, plan, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@plans_router.delete("/{plan}", status_code=204)
async def delete_plan(plan: Name, change: Changing) -> Response:
    """Remove a plan that no client is on."""
    async with change.begin() as write:
        await _plans.delete(write, plan, change.preconditions)
    return await change.answer(None, 204)


@plans_router.get("/{plan}/limits")
async def list_plan_limits(
    plan: Name, session: Reading, page: LimitPages, wanted: LimitFilter, prefix: Prefix = None
) -> Listing[LimitView]:
    """A plan's limits by name (the plan itself lists them in their order)."""
    limits = PlanLimits(await _plans.row(session, plan))
    return await limits.list_page(session, page, prefix=prefix, where=wanted)


@plans_router.post("/{plan}/limits", status_code=201, response_model=LimitView)
async def create_plan_limit(plan: Name, body: LimitCreate, change: Creating) -> Response:
    """Add a limit at the end of a plan."""
    async with change.begin() as write:
        limits = PlanLimits(await _plans.row(write.session, plan))
        view = await limits.create(write, body.name, body)
    return await change.answer(view, 201, location=f"/v1/plans/{plan}/limits/{body.name}")


@plans_router.get("/{plan}/limits/{limit}", response_model=LimitView)
async def get_plan_limit(plan: Name, limit: Name, session: Reading) -> Response:
    """One limit of a plan."""
    return json_with_etag(await PlanLimits(await _plans.row(session, plan)).get(session, limit))


@plans_router.put("/{plan}/limits/{limit}", response_model=LimitView, responses={201: {"model": LimitView}})
async def put_plan_limit(plan: Name, limit: Name, body: LimitReplace, change: Changing) -> Response:
    """Add or replace one limit of a plan."""
    same_name(limit, body.name, "name")
    async with change.begin() as write:
        limits = PlanLimits(await _plans.row(write.session, plan))
        view, made = await limits.replace(write, limit, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@plans_router.delete("/{plan}/limits/{limit}", status_code=204)
async def delete_plan_limit(plan: Name, limit: Name, change: Changing) -> Response:
    """Take one limit out of a plan."""
    async with change.begin() as write:
        limits = PlanLimits(await _plans.row(write.session, plan))
        await limits.delete(write, limit, change.preconditions)
    return await change.answer(None, 204)


@router.get("")
async def list_limits(
    session: Reading, page: LimitPages, wanted: LimitFilter, prefix: Prefix = None
) -> Listing[LimitView]:
    """Limits outside plans."""
    return await _limits.list_page(session, page, prefix=prefix, where=wanted)


@router.post("", status_code=201, response_model=LimitView)
async def create_limit(body: LimitCreate, change: Creating) -> Response:
    """Add a limit outside plans."""
    async with change.begin() as write:
        view = await _limits.create(write, body.name, body)
    return await change.answer(view, 201, location=f"/v1/limits/{body.name}")


@router.get("/{limit}", response_model=LimitView)
async def get_limit(limit: Name, session: Reading) -> Response:
    """One limit outside plans."""
    return json_with_etag(await _limits.get(session, limit))


@router.put("/{limit}", response_model=LimitView, responses={201: {"model": LimitView}})
async def put_limit(limit: Name, body: LimitReplace, change: Changing) -> Response:
    """Add or replace a limit outside plans."""
    same_name(limit, body.name, "name")
    async with change.begin() as write:
        view, made = await _limits.replace(write, limit, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{limit}", status_code=204)
async def delete_limit(limit: Name, change: Changing) -> Response:
    """Remove a limit outside plans."""
    async with change.begin() as write:
        await _limits.delete(write, limit, change.preconditions)
    return await change.answer(None, 204)
