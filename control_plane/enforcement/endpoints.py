"""``/v1/enforcement``: the switch at 3 a.m."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import by_method
from control_plane.database import Reading
from control_plane.enforcement.models import SwitchRow
from control_plane.enforcement.schemas import SwitchReplace, SwitchView
from control_plane.enforcement.service import Switches
from control_plane.errors import NotFoundError
from control_plane.limits.service import rows_of
from control_plane.orm import equal
from control_plane.publishing.writer import Change, Changing
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by
from tidegate.contract.blocks import EVERY_LIMIT
from tidegate.contract.usage import OUTSIDE_PLANS

router = APIRouter(prefix="/v1/enforcement", tags=["enforcement"], dependencies=[Depends(by_method)])
_switches = Switches()


@router.get("")
async def list_switches(
    session: Reading,
    page: Annotated[Page, sorted_by("target", "set_at", "expires_at")],
    prefix: Prefix = None,
    mode: Literal["enforce", "shadow"] | None = None,
) -> Listing[SwitchView]:
    """Every switch that is turned; with none, each limit does what its `shadow` says."""
    return await _switches.list_page(session, page, prefix=prefix, where=equal((SwitchRow.mode, mode)))


@router.put("", response_model=SwitchView, responses={201: {"model": SwitchView}})
async def put_switch_of_all(body: SwitchReplace, change: Changing) -> Response:
    """Put all limits into shadow, or enforce all of them, until `expires_at`."""
    return await _put(change, EVERY_LIMIT, body, None)


@router.delete("", status_code=204)
async def delete_switch_of_all(change: Changing) -> Response:
    """Turn the switch of all limits back."""
    return await _delete(change, EVERY_LIMIT)


@router.get("/{limit}", response_model=SwitchView)
async def get_switch_outside_plans(limit: Name, session: Reading) -> Response:
    """The switch of a limit outside plans."""
    return json_with_etag(await _switches.get(session, f"{OUTSIDE_PLANS}/{limit}"))


@router.put("/{limit}", response_model=SwitchView, responses={201: {"model": SwitchView}})
async def put_switch_outside_plans(limit: Name, body: SwitchReplace, change: Changing) -> Response:
    """Put one limit outside plans into shadow, or enforce it."""
    return await _put(change, f"{OUTSIDE_PLANS}/{limit}", body, (None, limit))


@router.delete("/{limit}", status_code=204)
async def delete_switch_outside_plans(limit: Name, change: Changing) -> Response:
    """Turn the switch of a limit outside plans back."""
    return await _delete(change, f"{OUTSIDE_PLANS}/{limit}")


@router.get("/{plan}/{limit}", response_model=SwitchView)
async def get_switch_of_plan_limit(plan: Name, limit: Name, session: Reading) -> Response:
    """The switch of a plan's limit."""
    return json_with_etag(await _switches.get(session, f"{plan}/{limit}"))


@router.put("/{plan}/{limit}", response_model=SwitchView, responses={201: {"model": SwitchView}})
async def put_switch_of_plan_limit(plan: Name, limit: Name, body: SwitchReplace, change: Changing) -> Response:
    """Put one limit of a plan into shadow, or enforce it."""
    return await _put(change, f"{plan}/{limit}", body, (plan, limit))


@router.delete("/{plan}/{limit}", status_code=204)
async def delete_switch_of_plan_limit(plan: Name, limit: Name, change: Changing) -> Response:
    """Turn the switch of a plan's limit back."""
    return await _delete(change, f"{plan}/{limit}")


async def _put(change: Change, target: str, body: SwitchReplace, limit: tuple[str | None, str] | None) -> Response:
    async with change.begin(urgent=True) as write:
        if limit is not None:
            await _require_limit(write.session, *limit)
        view, made = await _switches.replace(write, target, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


async def _delete(change: Change, target: str) -> Response:
    async with change.begin(urgent=True) as write:
        await _switches.delete(write, target, change.preconditions)
    return await change.answer(None, 204)


async def _require_limit(session: AsyncSession, plan: str | None, limit: str) -> None:
    if await rows_of(plan).find(session, limit) is None:
        where = "outside plans" if plan is None else f"in the plan {plan}"
        raise NotFoundError(f"There is no limit named {limit} {where}.")
