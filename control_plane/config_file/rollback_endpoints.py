"""``POST /v1/revisions/{number}/rollback``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response

from control_plane.access.principals import by_method
from control_plane.config_file.endpoints import MAX_SHOWN, AllowDeletes, ConfigChange, DryRun, within_deadline
from control_plane.config_file.rollback import roll_back
from control_plane.errors import NotFoundError
from control_plane.publishing import repository
from control_plane.publishing.writer import Change, Changing
from control_plane.web.etags import revision_tag
from control_plane.web.fields import Body, Text, View

router = APIRouter(prefix="/v1/revisions", tags=["roll-out"], dependencies=[Depends(by_method)])
Number = Annotated[int, Path(ge=1, le=2**62)]


class RollbackRequest(Body):
    """Why, unless `X-Tidegate-Reason` says so."""

    reason: Text | None = None


NO_WORDS = RollbackRequest()
"""The body may be left out."""


class RolledBack(View):
    """A rollback: the new revision, and what it changed back (at most 1,000 of it)."""

    revision: int
    to: int
    dry_run: bool
    changes: list[ConfigChange]
    omitted: int


@router.post("/{number}/rollback", response_model=RolledBack)
async def roll_back_to_revision(
    request: Request,
    number: Number,
    change: Changing,
    body: RollbackRequest = NO_WORDS,
    dry_run: DryRun = False,
    allow_deletes: AllowDeletes = 0,
) -> Response:
    """Make a new revision in which the configuration is as it was at this one.

    Keys, tokens, credentials, resets and runtime state stay as they are: what was revoked stays revoked. Clients that
    came since are deleted, and their keys with them. `If-Match` takes the newest revision, as `GET /v1/config` has it.
    """
    change.because(body.reason)
    work = _rolled_back(number, change, dry_run=dry_run, allow_deletes=allow_deletes)
    view = await (within_deadline(request, work) if dry_run else work)
    if dry_run:
        return JSONResponse(view.model_dump(mode="json"))
    return await change.answer(view, 200, tag=revision_tag(change.revision))


async def _rolled_back(number: int, change: Change, *, dry_run: bool, allow_deletes: int) -> RolledBack:
    async with change.begin(dry_run=dry_run) as write:
        change.preconditions.check_tag(revision_tag(write.revision))
        if await repository.revision(write.session, number) is None:
            raise NotFoundError(f"There is no revision {number}.")
        found = await roll_back(write, number, allow_deletes=allow_deletes)
        shown = [ConfigChange.model_validate(item) for item in found[:MAX_SHOWN]]
        before = write.revision
    return RolledBack(
        revision=before if dry_run else change.revision,
        to=number,
        dry_run=dry_run,
        changes=shown,
        omitted=len(found) - len(shown),
    )
