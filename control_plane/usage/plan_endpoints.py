"""``/v1/plans/{plan}/near-limit`` and ``/what-if``: usage against limits."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from control_plane.access.principals import by_method, reading_only
from control_plane.plans.service import Plans
from control_plane.reading import Reading
from control_plane.usage import nearness, reading, what_if
from control_plane.usage.schemas import NearLimit, NearLimitView, SkippedLimit, WhatIfClient, WhatIfRequest, WhatIfView
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
    thousand at most. From hourly usage: limits that it cannot tell of are in `skipped`, with the reason.
    """
    fit, skipped = nearness.fit_limits(await _plans.row(session, plan))
    near = await nearness.near(session, plan, fit, threshold, datetime.now(UTC))
    return NearLimitView(
        items=[
            NearLimit(
                client=one.client,
                limit=one.limit,
                used=one.used,
                of=one.of,
                share=one.used / one.of,
                window_start=one.start,
            )
            for one in near
        ],
        skipped=[SkippedLimit(limit=one.limit, reason=one.reason) for one in skipped],
        complete_until=await reading.complete_until(session),
    )


@router.post("/{plan}/what-if", dependencies=[Depends(reading_only)])
async def what_if_limit(plan: Name, body: WhatIfRequest, session: Reading) -> WhatIfView:
    """How many requests of the last days a limit by client would have denied; changes nothing."""
    await _plans.row(session, plan)
    outcome = await what_if.estimate(session, plan, body.limit, body.days, datetime.now(UTC))
    return WhatIfView(
        requests=outcome.requests,
        denied=outcome.denied,
        would_deny=outcome.would_deny,
        clients=outcome.clients,
        most_affected=[WhatIfClient(**one._asdict()) for one in outcome.most_affected],
        since=outcome.since,
        approximation=outcome.approximation,
        complete_until=await reading.complete_until(session),
    )
