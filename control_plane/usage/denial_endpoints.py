"""``GET /v1/denials``: single denials, asked of every region at this moment."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from control_plane.access.principals import by_method
from control_plane.canary import repository as rollouts
from control_plane.canary.models import RolloutRow
from control_plane.usage.denial_reasons import reason, remedy
from control_plane.web.fields import Instant, View
from tidegate.contract.decision import Cause
from tidegate.contract.denials import MAX_FOUND, Denial, DenialQuery, one_spelling

router = APIRouter(prefix="/v1/denials", tags=["usage"], dependencies=[Depends(by_method)])


class DenialView(View):
    """One denial, with why and what can be done."""

    at: datetime
    region: str
    node: str
    request_id: str | None
    client: str | None
    """Null: nobody's, counted by its address."""
    key: str | None
    """The beginning of the API key that was shown."""
    ip: str | None
    endpoint: str | None
    limit_name: str | None
    limit: int | None
    used: int | None
    """Of the region's own part of the limit; null where that is unknown."""
    cost: int
    cause: Cause
    reason: str
    remedy: str
    reason_class: str | None
    """Of a block."""
    retry_after_s: float | None
    degraded: bool
    """Decided without the region's store."""
    revision: int
    canary: bool
    """Decided by what a roll-out had given to a part of the nodes only."""
    requests: int
    """More than 1: a client library denied so many from memory."""
    left_out: int
    """So many more denials of this caller in the same second are not remembered."""


class Denials(View):
    """Denials, newest first; by region why there may be more, or null."""

    items: list[DenialView]
    regions: dict[str, str | None]


def _query(
    client: Annotated[str | None, Query(max_length=128)] = None,
    key: Annotated[str | None, Query(min_length=4, max_length=256, description="its beginning is enough")] = None,
    ip: Annotated[str | None, Query(max_length=64, description="an address, in any spelling")] = None,
    request_id: Annotated[str | None, Query(max_length=128)] = None,
    since: Annotated[Instant | None, Query(alias="from")] = None,
    until: Annotated[Instant | None, Query(alias="to", description="not included")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 50,
) -> DenialQuery:
    return DenialQuery(
        client=client, key=key, ip=None if ip is None else one_spelling(ip), request_id=request_id, most=limit,
        since_ms=0 if since is None else _ms(since), until_ms=2**53 if until is None else _ms(until),
    )  # fmt: skip


@router.get("")
async def list_denials(request: Request, query: Annotated[DenialQuery, Depends(_query)]) -> Denials:
    """Denials that the regions remember, newest first: of each caller the last 50 and the first of each minute, for a
    day at most. All that is given must fit. `regions` says why a region may have more, or could not be asked.
    """
    state = request.state
    answers = await state.questions.denials(query)
    found = [(region, denial) for region, answer in answers.items() for denial in answer.denials]
    found = sorted(found, key=lambda one: one[1].at_ms, reverse=True)[: query.most]
    async with state.database.read() as session:
        stages = await rollouts.under_way_since(session, _instant(found[-1][1].at_ms)) if found else []
    return Denials(
        items=[_view(region, denial, stages) for region, denial in found],
        regions={region: answer.reason for region, answer in answers.items()},
    )


def _view(region: str, denial: Denial, stages: Sequence[RolloutRow]) -> DenialView:
    at = _instant(denial.at_ms)
    canary = any(
        stage.base_revision < denial.revision
        and stage.started_at <= at
        and (stage.ended_at is None or at < stage.ended_at)
        for stage in stages
    )
    return DenialView(
        at=at, region=region, node=denial.node, request_id=denial.request_id, client=denial.client, key=denial.key,
        ip=denial.ip, endpoint=denial.endpoint, limit_name=denial.policy, limit=denial.limit, used=denial.used,
        cost=denial.cost, cause=denial.cause, reason=reason(denial), remedy=remedy(denial),
        reason_class=denial.reason_class, retry_after_s=denial.retry_after_s, degraded=denial.degraded,
        revision=denial.revision, canary=canary, requests=denial.requests, left_out=denial.left_out,
    )  # fmt: skip


def _ms(at: datetime) -> int:
    return max(0, int(at.timestamp() * 1_000))


def _instant(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1_000, UTC)
