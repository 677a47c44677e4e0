"""``/v1/config``: the whole configuration, to read, to compare with a file, and to make what a file says."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response

from control_plane.access.principals import by_method
from control_plane.config_file import reading, writing
from control_plane.config_file.differences import Difference, check_deletions
from control_plane.config_file.schemas import ConfigFile
from control_plane.config_file.sections import CLIENTS, NAMES
from control_plane.errors import PreconditionFailedError
from control_plane.reading import Reading
from control_plane.rollout import repository as rollout
from control_plane.rollout.changes import Changing
from control_plane.web.fields import View

router = APIRouter(prefix="/v1/config", tags=["the file"], dependencies=[Depends(by_method)])
MAX_SHOWN = 1_000
SectionName = Literal["regions", "adaptive_policies", "backends", "endpoints", "plans", "limits", "clients"]


class ConfigChange(View):
    """One named thing of a section, before and after, as the file writes it; ``null`` where it is not."""

    section: SectionName
    name: str
    action: Literal["create", "update", "delete"]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class RuntimeState(View):
    """What no file decides and an apply leaves: manual factors, blocks, switches, expiring overrides, auto shares."""

    kind: Literal["manual factor", "block", "enforcement", "override", "shares"]
    name: str
    value: str
    expires_at: datetime | None


class ConfigApplied(View):
    """What an apply did, or (``dry_run``) would do."""

    revision: int
    dry_run: bool
    counts: dict[SectionName, dict[Literal["create", "update", "delete"], int]]
    """Sections in which something changes."""
    changes: list[ConfigChange]
    """At most 1,000 of them."""
    omitted: int
    """How many more there are."""
    runtime: list[RuntimeState]


class _DryRunDoneError(Exception):
    """Ends the transaction of a dry run: everything was tried, nothing is kept."""


@router.get("", response_model=ConfigFile, response_model_exclude_unset=True)
async def get_config(
    session: Reading, sections: Annotated[list[SectionName] | None, Query(description="only these sections")] = None
) -> Response:
    """The configuration as a file says it, without secrets, hashes and runtime state. The ETag is the revision."""
    wanted: Sequence[str] = sections or NAMES
    found = await reading.current(session, wanted)
    if CLIENTS in wanted:
        found[CLIENTS] = await reading.clients(session)
    head = await rollout.head(session)
    return JSONResponse(reading.whole(found, NAMES), headers={"ETag": f'"{head.revision}"'})


@router.put("", response_model=ConfigApplied)
async def put_config(
    body: ConfigFile,
    change: Changing,
    dry_run: Annotated[bool, Query(description="say what would change, and change nothing")] = False,
    prune: Annotated[
        list[Literal["clients"]] | None, Query(description="`clients`: delete those that the file leaves out")
    ] = None,
    allow_deletes: Annotated[int, Query(ge=0, le=10**9, description="how many deletions are allowed beyond 10")] = 0,
) -> Response:
    """Make the configuration what a file says: all of it in one revision, or nothing.

    A section that is absent is left alone; an empty one means none. Clients and their overrides are only deleted with
    `prune=clients`. `If-Match` takes the revision that was read.
    """
    applied: ConfigApplied | None = None
    try:
        async with change.begin() as write:
            _check_revision(change.preconditions.if_match, write.revision)
            found = await writing.plan_of(write, body, prunes_clients=bool(prune))
            check_deletions(sum(item.action == "delete" for item in found), allow_deletes)
            runtime = await reading.runtime_state(write.session)
            await writing.apply(write, body, found)
            applied = _applied(write.revision, found, runtime, dry_run=dry_run)
            if dry_run:
                await write.session.flush()
                raise _DryRunDoneError
    except _DryRunDoneError:
        pass
    assert applied is not None  # noqa: S101  # the block ended without another error
    if dry_run:
        return JSONResponse(applied.model_dump(mode="json"))
    return await change.answer(applied.model_copy(update={"revision": change.revision}), 200)


def _check_revision(if_match: str | None, revision: int) -> None:
    if if_match is None or if_match.strip() == "*":
        return
    if f'"{revision}"' not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailedError(f"If-Match does not name the current revision, {revision}: read it again.")


def _applied(revision: int, found: list[Difference], runtime: list[dict[str, Any]], *, dry_run: bool) -> ConfigApplied:
    counts: dict[Any, Any] = {}
    for section in NAMES:
        actions = Counter(item.action for item in found if item.section == section)
        if actions:
            counts[section] = dict(actions)
    shown = [ConfigChange.model_validate({**item._asdict(), "action": item.action}) for item in found[:MAX_SHOWN]]
    return ConfigApplied(
        revision=revision,
        dry_run=dry_run,
        counts=counts,
        changes=shown,
        omitted=len(found) - len(shown),
        runtime=[RuntimeState.model_validate(item) for item in runtime],
    )
