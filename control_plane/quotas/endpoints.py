"""``/v1/quotas``: regional shares of a plan's limit, or (plan ``_``) of one outside plans."""

from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.database import Reading
from control_plane.limits.models import LimitRow
from control_plane.orm import equal
from control_plane.publishing.writer import Changing, ConfigWrite
from control_plane.quotas import service
from control_plane.quotas.schemas import QuotaFree, QuotaReplace, QuotaView
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, PageQuery
from tidegate.contract.usage import OUTSIDE_PLANS

router = APIRouter(prefix="/v1/quotas", tags=["quotas"], dependencies=[Depends(by_method)])
PlanOrNone = Annotated[str, Path(pattern=r"^[a-z0-9._-]{1,64}$", description="a plan, or `_` for limits outside plans")]


@router.get("")
async def list_quotas(
    session: Reading,
    request: Request,
    page: PageQuery,
    plan: Annotated[
        str | None, Query(pattern=r"^[a-z0-9._-]{1,64}$", description="a plan, or `_` for limits outside plans")
    ] = None,
    auto: Annotated[bool | None, Query(description="whether demand decides the shares")] = None,
) -> Listing[QuotaView]:
    """Limits that are split over regions, by plan and name; all, or those of a plan."""
    where = equal((LimitRow.auto_shares, auto))
    if plan is not None:
        where.append(LimitRow.plan.is_(None) if plan == OUTSIDE_PLANS else LimitRow.plan == plan)
    return await service.list_page(session, page, request.state.settings.heartbeat_s, where)


@router.get("/{plan}/{limit}", response_model=QuotaView)
async def get_quota(plan: PlanOrNone, limit: Name, session: Reading, request: Request) -> Response:
    """How one limit is split, where a move of its shares stands, and what the rebalancer last decided."""
    return json_with_etag(await service.get(session, plan, limit, request.state.settings.heartbeat_s))


@router.put("/{plan}/{limit}", response_model=QuotaView)
async def put_quota(plan: PlanOrNone, limit: Name, body: QuotaReplace, request: Request, change: Changing) -> Response:
    """Set a limit's shares. Where one rises it does so once every node goes by the cut of the others: see `move`.

    `auto` shares follow demand; until the rebalancer first runs they stay as they are.
    """
    async with change.begin() as write:
        await service.replace(write, plan, limit, body.shares, change.preconditions)
        view = _made(write, plan, limit, request)
    return await change.answer(await view, 200)


@router.post("/{plan}/{limit}/free", response_model=QuotaView)
async def free_quota(plan: PlanOrNone, limit: Name, body: QuotaFree, request: Request, change: Changing) -> Response:
    """Do not wait for a region that cannot acknowledge its cut. Only where it is known to decide nothing any more:
    what it still admitted would come on top of the limit.
    """
    async with change.begin() as write:
        await service.free(write, plan, limit, body.region, change.preconditions)
        view = _made(write, plan, limit, request)
    return await change.answer(await view, 200)


@router.delete("/{plan}/{limit}", status_code=204)
async def delete_quota(plan: PlanOrNone, limit: Name, change: Changing) -> Response:
    """Go back to equal shares."""
    async with change.begin() as write:
        await service.reset(write, plan, limit, change.preconditions)
    return await change.answer(None, 204)


def _made(write: ConfigWrite, plan: str, limit: str, request: Request) -> Awaitable[QuotaView]:
    # whether a move began is known once the revision is made; after the commit it could be another writer's
    heartbeat_s = request.state.settings.heartbeat_s
    return write.once_published(lambda session: service.get(session, plan, limit, heartbeat_s))
