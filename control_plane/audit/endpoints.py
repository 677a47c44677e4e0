"""``/v1/audit``: who did what, when and why. There is no way to change it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from sqlalchemy import ColumnElement

from control_plane.access.principals import Caller, Principal, by_method
from control_plane.audit import repository
from control_plane.audit.models import AuditRow
from control_plane.audit.schemas import AuditEntry
from control_plane.database import Reading
from control_plane.errors import NotFoundError
from control_plane.orm import equal
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Instant
from control_plane.web.pages import Listing, PageQuery, listing, number_after

router = APIRouter(prefix="/v1/audit", tags=["audit log"], dependencies=[Depends(by_method)])
Wanted = Annotated[str | None, Query(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]


@router.get("")
async def list_audit_entries(
    session: Reading,
    caller: Caller,
    page: PageQuery,
    author: Wanted = None,
    action: Wanted = None,
    resource: Wanted = None,
    name: Wanted = None,
    revision: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    request_id: Wanted = None,
    since: Annotated[Instant | None, Query(description="not before this instant")] = None,
    until: Annotated[Instant | None, Query(description="before this instant")] = None,
) -> Listing[AuditEntry]:
    """Every write, the newest first. Entries about tokens are for admins."""
    where = equal(
        (AuditRow.author, author),
        (AuditRow.action, action),
        (AuditRow.resource, resource),
        (AuditRow.name, name),
        (AuditRow.revision, revision),
        (AuditRow.request_id, request_id),
    )
    if since is not None:
        where.append(AuditRow.at >= since)
    if until is not None:
        where.append(AuditRow.at < until)
    rows = await repository.page(session, [*where, *_visible(caller)], number_after(page), page.limit + 1)
    return listing(rows, page, lambda row: str(row.id), AuditEntry.model_validate)


@router.get("/{id}", response_model=AuditEntry)
async def get_audit_entry(session: Reading, caller: Caller, id: Annotated[int, Path(ge=1, le=2**62)]) -> Response:
    """One entry."""
    row = await repository.entry(session, id, _visible(caller))
    if row is None:
        raise NotFoundError(f"There is no entry {id} in the audit log.")
    return json_with_etag(AuditEntry.model_validate(row))


def _visible(caller: Principal) -> list[ColumnElement[bool]]:
    return [] if caller.role == "admin" else [AuditRow.resource != "token"]
