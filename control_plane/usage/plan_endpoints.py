"""``/v1/plans/{plan}/near-limit`` and ``/what-if``: usage against limits."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import by_method, reading_only
from control_plane.database import Reading
from control_plane.errors import FieldError, InvalidError
from control_plane.limits.service import Plans
from control_plane.usage import near_limit_repository, what_if, windows
from control_plane.usage import repository as reading
from control_plane.usage.schemas import NearLimit, NearLimitView, SkippedLimit, WhatIfRequest, WhatIfView
from control_plane.usage.what_if_repository import CandidateLimit
from control_plane.web.fields import Name

router = APIRouter(prefix="/v1/plans", tags=["usage"])
_plans = Plans()


@router.get("/{plan}/near-limit", dependencies=[Depends(by_method)])
async def clients_near_limit(
    plan: Name,
    session: Reading,
    threshold: Annotated[float, Query(gt=0, le=10, description="0.8: who used four fifths")] = 0.8,
) -> NearLimitView:
    """Clients of a plan that used at least so much of one of its limits in its current window, nearest first; a
    thousand at most. From hourly usage: limits that it does not cover are in `skipped`, with the reason.
    """
    fit, skipped = windows.fit_limits(await _plans.row(session, plan))
    near = await near_limit_repository.near(session, plan, fit, threshold, datetime.now(UTC))
    return NearLimitView(
        items=[NearLimit.model_validate(one) for one in near],
        skipped=skipped,
        complete_until=await reading.complete_until(session),
    )


@router.post("/{plan}/what-if", dependencies=[Depends(reading_only)])
async def what_if_limits(plan: Name, body: WhatIfRequest, session: Reading, request: Request) -> WhatIfView:
    """How many requests of the plan's clients in the last days a limit by client, several, or those of another plan
    would have denied; changes nothing. What takes too long is refused (422): ask for fewer days.
    """
    await _plans.row(session, plan)
    candidates, skipped = await _candidates(session, body)
    if not candidates:
        raise InvalidError([FieldError("plan", f"has no limit that usage covers: {skipped or 'it has none'}")])
    most_s = what_if.evaluation_bound_s(request.state.settings.database_command_timeout_s)
    return await what_if.estimate(session, plan, candidates, body.days, datetime.now(UTC), most_s, skipped)


async def _candidates(session: AsyncSession, body: WhatIfRequest) -> tuple[list[CandidateLimit], list[SkippedLimit]]:
    given = [name for name in ("limit", "limits", "plan") if getattr(body, name) is not None]
    if len(given) != 1:
        raise InvalidError([FieldError(given[-1] if given else "limit", "give exactly one of limit, limits and plan")])
    if body.plan is not None:
        row = await _plans.rows.find(session, body.plan)
        if row is None:
            raise InvalidError([FieldError("plan", f"there is no plan named {body.plan}")])
        return what_if.candidates_of_plan(row)
    limits = {"limit": body.limit} if body.limit else {f"limits[{at}]": one for at, one in enumerate(body.limits or ())}
    return what_if.candidates_from(limits), []
