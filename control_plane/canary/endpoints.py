"""``/v1/rollouts``: which revision is on its way, how far it is, and stepping in."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import by_method
from control_plane.canary import repository as rollouts
from control_plane.canary.models import RolloutRow
from control_plane.canary.schemas import (
    HeldDocument,
    RolloutDetail,
    RolloutPolicyBody,
    RolloutPolicyView,
    RolloutReason,
    RolloutView,
    State,
)
from control_plane.canary.service import RolloutEngine
from control_plane.database import Reading
from control_plane.errors import NotFoundError
from control_plane.orm import equal
from control_plane.publishing.writer import Changing
from control_plane.web.etags import json_with_etag
from control_plane.web.pages import Listing, PageQuery, listing, number_after

router = APIRouter(prefix="/v1/rollouts", tags=["roll-out"], dependencies=[Depends(by_method)])
Number = Annotated[int, Path(ge=1, le=2**62, description="the revision that began it")]


NO_WORDS = RolloutReason()


@router.get("")
async def list_rollouts(session: Reading, page: PageQuery, state: State | None = None) -> Listing[RolloutView]:
    """Roll-outs, newest first: all, or those in a state."""
    rows = await rollouts.before(session, number_after(page), page.limit + 1, equal((RolloutRow.state, state)))
    return listing(rows, page, lambda row: str(row.number), RolloutView.of)


@router.get("/policy", response_model=RolloutPolicyView)
async def get_rollout_policy(session: Reading) -> Response:
    """How changes reach nodes."""
    return json_with_etag(RolloutPolicyView.model_validate(await rollouts.policy(session)))


@router.put("/policy", response_model=RolloutPolicyView)
async def put_rollout_policy(body: RolloutPolicyBody, change: Changing) -> Response:
    """Set how changes reach nodes from now on. A roll-out that is under way keeps the policy it began with."""
    async with change.begin() as write:
        before = RolloutPolicyView.model_validate(await rollouts.policy(write.session))
        change.preconditions.check(before)
        await rollouts.store_policy(write.session, body.model_dump())
        view = RolloutPolicyView.model_validate(body)
        write.record("rollout-policy", "policy", before, view)
    return await change.answer(view, 200)


@router.get("/{revision}", response_model=RolloutDetail)
async def get_rollout(session: Reading, revision: Number) -> Response:
    """One roll-out, with the documents that it holds back from other nodes."""
    return json_with_etag(await detail(session, revision))


@router.post("/{revision}/release", response_model=RolloutDetail)
async def release_rollout(
    request: Request, revision: Number, change: Changing, body: RolloutReason = NO_WORDS
) -> Response:
    """To every node now, whatever nodes report."""
    engine: RolloutEngine = request.state.rollouts
    async with change.begin() as write:
        change.preconditions.check(await detail(write.session, revision))
        await engine.release(write, revision, body.reason or write.reason or "released by hand")
        view = write.once_published(lambda session: detail(session, revision))
    return await change.answer(await view, 200)


@router.post("/{revision}/rollback", response_model=RolloutDetail)
async def roll_back_rollout(
    request: Request, revision: Number, change: Changing, body: RolloutReason = NO_WORDS
) -> Response:
    """Stop: nodes that have it get, by a new revision, what was before."""
    engine: RolloutEngine = request.state.rollouts
    async with change.begin() as write:
        change.preconditions.check(await detail(write.session, revision))
        await engine.take_back(write, revision, body.reason or write.reason or "rolled back by hand")
        view = write.once_published(lambda session: detail(session, revision))
    return await change.answer(await view, 200)


async def detail(session: AsyncSession, number: int) -> RolloutDetail:
    """A roll-out with what it holds back."""
    row = await rollouts.rollout(session, number, with_held=True)
    if row is None:
        raise NotFoundError(f"No roll-out began with revision {number}.")
    held = [HeldDocument.of(item) for item in row.held]
    return RolloutDetail(**RolloutView.of(row).model_dump(), held=held)
