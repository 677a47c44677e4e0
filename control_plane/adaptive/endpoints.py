"""``/v1/adaptive-policies``."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.adaptive.schemas import PolicyCreate, PolicyReplace, PolicyView
from control_plane.adaptive.service import AdaptivePolicies
from control_plane.database import Reading
from control_plane.publishing.writer import Changing, Creating
from control_plane.resources import same_name
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by

router = APIRouter(prefix="/v1/adaptive-policies", tags=["adaptive limits"], dependencies=[Depends(by_method)])
_policies = AdaptivePolicies()


@router.get("")
async def list_adaptive_policies(
    session: Reading, page: Annotated[Page, sorted_by("policy")], prefix: Prefix = None
) -> Listing[PolicyView]:
    """Adaptive policies by name."""
    return await _policies.list_page(session, page, prefix=prefix)


@router.post("", status_code=201, response_model=PolicyView)
async def create_adaptive_policy(body: PolicyCreate, change: Creating) -> Response:
    """Add an adaptive policy."""
    async with change.begin() as write:
        view = await _policies.create(write, body.policy, body)
    return await change.answer(view, 201, location=f"/v1/adaptive-policies/{body.policy}")


@router.get("/{policy}", response_model=PolicyView)
async def get_adaptive_policy(policy: Name, session: Reading) -> Response:
    """One adaptive policy."""
    return json_with_etag(await _policies.get(session, policy))


@router.put("/{policy}", response_model=PolicyView, responses={201: {"model": PolicyView}})
async def put_adaptive_policy(policy: Name, body: PolicyReplace, change: Changing) -> Response:
    """Add or replace an adaptive policy."""
    same_name(policy, body.policy, "policy")
    async with change.begin() as write:
        view, made = await _policies.replace(write, policy, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{policy}", status_code=204)
async def delete_adaptive_policy(policy: Name, change: Changing) -> Response:
    """Remove an adaptive policy that no backend and no limit names."""
    async with change.begin() as write:
        await _policies.delete(write, policy, change.preconditions)
    return await change.answer(None, 204)
