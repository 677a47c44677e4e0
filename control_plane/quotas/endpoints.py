"""``/v1/quotas``: regional shares of a plan's limit, or (plan ``_``) of one outside plans."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.quotas import service
from control_plane.quotas.schemas import QuotaReplace, QuotaView
from control_plane.rollout.changes import Changing, Reading, shown
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, PageQuery

router = APIRouter(prefix="/v1/quotas", tags=["quotas"], dependencies=[Depends(by_method)])
PlanOrNone = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,64}$", description="a plan, or `_` for limits outside plans")]


@router.get("")
async def list_quotas(session: Reading, page: PageQuery) -> Listing[QuotaView]:
    """Limits that are split over regions, by plan and name."""
    return await service.list_page(session, page)


@router.get("/{plan}/{limit}", response_model=QuotaView)
async def get_quota(plan: PlanOrNone, limit: Name, session: Reading) -> Response:
    """How one limit is split."""
    return shown(await service.get(session, plan, limit))


@router.put("/{plan}/{limit}", response_model=QuotaView)
async def put_quota(plan: PlanOrNone, limit: Name, body: QuotaReplace, change: Changing) -> Response:
    """Set a limit's shares. `auto` is recorded, and split equally until a rebalancer runs."""
    async with change.begin() as write:
        view = await service.replace(write, plan, limit, body.shares, change.preconditions)
    return await change.answer(view, 200)


@router.delete("/{plan}/{limit}", status_code=204)
async def delete_quota(plan: PlanOrNone, limit: Name, change: Changing) -> Response:
    """Go back to equal shares."""
    async with change.begin() as write:
        await service.reset(write, plan, limit, change.preconditions)
    return await change.answer(None, 204)
