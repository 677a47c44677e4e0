"""Undo of one revision: every resource that it changed is written again as it was before.

It goes through the same services as an admin's write, so that tables, documents and the audit log agree, and whatever
has come to depend on the change meanwhile is found.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import select

from control_plane.adaptive.schemas import PolicyCreate
from control_plane.adaptive.service import AdaptivePolicies
from control_plane.audit.models import AuditRow
from control_plane.errors import ConflictError
from control_plane.limits.models import LimitShare
from control_plane.limits.schemas import LimitCreate
from control_plane.limits.service import OutsideLimits
from control_plane.plans.schemas import PlanCreate
from control_plane.plans.service import Plans
from control_plane.quotas.service import publish_limit
from control_plane.regions import repository as regions
from control_plane.resources import Resource
from control_plane.rollout.writer import ConfigWrite
from control_plane.routes.schemas import BackendCreate, EndpointCreate
from control_plane.routes.service import Backends, Endpoints
from control_plane.web.etags import Preconditions
from control_plane.web.fields import Body

Record = Mapping[str, Any]


class Undoable(NamedTuple):
    """A resource whose records can be written again: the shape of its body, and what comes after."""

    resource: Resource[Any, Any, Any]
    body: type[Body]
    afterwards: Callable[[ConfigWrite, Record], Awaitable[None]] | None = None


async def undo(write: ConfigWrite, revision: int) -> None:
    """Bring back what ``revision`` changed. Raises :class:`ConflictError` where it changed what cannot be undone."""
    query = select(AuditRow).where(AuditRow.revision == revision).order_by(AuditRow.id.desc())
    rows = (await write.session.scalars(query)).all()
    if not rows:
        raise ConflictError(f"The audit log does not know what revision {revision} changed.")
    for row in rows:
        known = _UNDOABLE.get(row.resource)
        if known is None:
            raise ConflictError(f"A change of a {row.resource} cannot be undone: {row.name}.")
        if row.before is None:
            await known.resource.delete(write, row.name, Preconditions())
            continue
        body = _body(known.body, row.before)
        await known.resource.replace(write, row.name, body, Preconditions())
        await write.session.flush()
        if known.afterwards is not None:
            await known.afterwards(write, row.before)


def _body(kind: type[Body], record: Record) -> Body:
    # by JSON: bodies are strict, and JSON is the form in which records were kept
    return kind.model_validate_json(json.dumps(_without_shares(record)))


def _without_shares(record: Record) -> dict[str, Any]:
    members = {name: value for name, value in record.items() if name != "shares"}
    if isinstance(members.get("limits"), list):
        members["limits"] = [_without_shares(limit) for limit in members["limits"]]
    return members


async def _shares_of_plan(write: ConfigWrite, record: Record) -> None:
    row = await Plans().row(write.session, record["plan"])
    shares = {limit["name"]: limit.get("shares") for limit in record["limits"]}
    for limit in row.limits:
        await _set_shares(write, limit, shares.get(limit.name))
    if row.limits:
        await publish_limit(write, row.limits[0])


async def _shares_of_limit(write: ConfigWrite, record: Record) -> None:
    row = await OutsideLimits().row(write.session, record["name"])
    await _set_shares(write, row, record.get("shares"))
    await publish_limit(write, row)


async def _set_shares(write: ConfigWrite, row: Any, shares: dict[str, float] | str | None) -> None:
    names = set(await regions.names(write.session))
    explicit = {} if not isinstance(shares, dict) else {name: part for name, part in shares.items() if name in names}
    kept = {share.region: share for share in row.shares}
    row.shares = [kept.get(region) or LimitShare(region=region) for region in sorted(explicit)]
    for share in row.shares:
        share.fraction = explicit[share.region]
    row.auto_shares = shares == "auto"
    await write.session.flush()


_UNDOABLE: dict[str, Undoable] = {
    "plan": Undoable(Plans(), PlanCreate, _shares_of_plan),
    "limit": Undoable(OutsideLimits(), LimitCreate, _shares_of_limit),
    "limit outside plans": Undoable(OutsideLimits(), LimitCreate, _shares_of_limit),
    "endpoint": Undoable(Endpoints(), EndpointCreate),
    "backend": Undoable(Backends(), BackendCreate),
    "adaptive policy": Undoable(AdaptivePolicies(), PolicyCreate),
}
