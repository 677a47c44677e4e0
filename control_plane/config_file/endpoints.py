"""``/v1/config``: the whole configuration, to read, to compare with a file, and to make what a file says."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import allows, by_method, principal_of, reading_only
from control_plane.canary.endpoints import detail
from control_plane.canary.schemas import RolloutDetail
from control_plane.config_file import repository, sections, writing
from control_plane.config_file.differences import Difference, check_deletions
from control_plane.config_file.sections import CLIENTS, SECTION_NAMES, ConfigFile, SectionName
from control_plane.database import Reading
from control_plane.errors import ControlPlaneError
from control_plane.publishing.repository import head
from control_plane.publishing.writer import Change, Changing
from control_plane.web import problems
from control_plane.web.etags import revision_tag
from control_plane.web.fields import View
from control_plane.web.waiting import while_connected

router = APIRouter(prefix="/v1/config", tags=["the file"])
MAX_SHOWN = 1_000
VIEWER_TRIES_S = 10.0
OPERATOR_TRIES_S = 300.0
Outcome = TypeVar("Outcome")
DryRun = Annotated[bool, Query(description="say what would change, and change nothing")]
Prune = Annotated[
    list[Literal["clients"]] | None, Query(description="`clients`: delete those that the file leaves out")
]
AllowDeletes = Annotated[int, Query(ge=0, le=10**9, description="how many deletions are allowed, if more than 10")]
NDJSON = "application/x-ndjson"


class ConfigChange(View):
    """One named thing of a section, before and after, as the file writes it; ``null`` where it is not.

    So is an override that goes as it no longer fits its client's plan: ``acme.overrides.hourly`` in ``clients``. Where
    only its temporary figures go, or only those after them, it is ``.temporary`` or ``.then`` of that name.
    """

    section: SectionName
    name: str
    action: Literal["create", "update", "delete"]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class RuntimeState(View):
    """What no file decides and an apply leaves: manual factors, blocks, overrides that end, shares by demand."""

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
    rollout: RolloutDetail | None = None
    """The roll-out that the apply began: what it holds back, and where it is in force first."""


@router.get("", dependencies=[Depends(by_method)], response_model=ConfigFile, response_model_exclude_unset=True)
async def get_config(
    session: Reading,
    names: Annotated[list[SectionName] | None, Query(alias="sections", description="only these sections")] = None,
) -> Response:
    """The configuration as a file says it, without secrets, hashes and runtime state. The ETag is the revision."""
    wanted: Sequence[str] = names or SECTION_NAMES
    found = await sections.current(session, wanted)
    if CLIENTS in wanted:
        found[CLIENTS] = await sections.all_clients(session)
    revision = (await head(session)).revision
    file = {"version": 1, **{name: found[name] for name in SECTION_NAMES if name in found}}
    return JSONResponse(file, headers={"ETag": revision_tag(revision)})


PROGRESS: dict[int | str, dict[str, Any]] = {200: {"content": {NDJSON: {"schema": {"type": "string"}}}}}


@router.put("", dependencies=[Depends(by_method)], response_model=ConfigApplied, responses=PROGRESS)
async def put_config(
    request: Request,
    body: ConfigFile,
    change: Changing,
    dry_run: DryRun = False,
    prune: Prune = None,
    allow_deletes: AllowDeletes = 0,
) -> Response:
    """Make the configuration what a file says: all of it in one revision, or nothing.

    A section that is absent is left alone; an empty one means none. Clients and overrides that the file leaves out
    are only deleted with `prune=clients`; what no longer fits of an override to its client's plan goes, and `changes`
    names it. `If-Match` takes the revision that was read. With `Accept: application/x-ndjson` the answer is a line of
    `{"done": n, "of": m}` for each part of the clients, and at last one of `{"status": ..., "body": ...}`.
    """
    wanted = _Wanted(body, dry_run=dry_run, prunes=bool(prune), allow_deletes=allow_deletes)
    return await _answer(request, wanted, change)


@router.post("/diff", dependencies=[Depends(reading_only)], response_model=ConfigApplied, responses=PROGRESS)
async def diff_config(
    request: Request, body: ConfigFile, change: Changing, prune: Prune = None, allow_deletes: AllowDeletes = 0
) -> Response:
    """Say what a `PUT` of this file would change or why it would be refused, and change nothing: a viewer may ask.

    Everything is as it is with `PUT /v1/config?dry_run=true`. It reads one instant and holds up no write: one that it
    would block ends it with 503. A viewer may send 1 MiB and take 10 s, an operator 128 MiB and 300 s.
    """
    wanted = _Wanted(body, dry_run=True, prunes=bool(prune), allow_deletes=allow_deletes)
    return await _answer(request, wanted, change)


async def _answer(request: Request, wanted: "_Wanted", change: Change) -> Response:
    if NDJSON in request.headers.get("accept", ""):
        lines = _progress(request, wanted, change)
        return StreamingResponse(lines, media_type=NDJSON, headers={"Cache-Control": "no-store"})
    if wanted.dry_run:
        return await within_deadline(request, _put(wanted, change, None))
    return await _put(wanted, change, None)


async def within_deadline(request: Request, work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """The outcome of a dry run, which ends with its client and by a deadline of the caller's role."""
    writes = allows(principal_of(request), "operator")
    return await while_connected(request, work, OPERATOR_TRIES_S if writes else VIEWER_TRIES_S)


class _Wanted(NamedTuple):
    file: ConfigFile
    dry_run: bool
    prunes: bool
    allow_deletes: int


async def _put(wanted: _Wanted, change: Change, progress: writing.Progress | None) -> Response:
    async with change.begin(dry_run=wanted.dry_run) as write:
        change.preconditions.check_tag(revision_tag(write.revision))
        found = await writing.differences_to(write, wanted.file, prunes_clients=wanted.prunes)
        check_deletions(found, wanted.allow_deletes)
        await writing.apply(write, wanted.file, found, progress)
        found += writing.lost_overrides(write, (wanted.file.clients or ()) if wanted.prunes else ())
        check_deletions(found, wanted.allow_deletes)
        runtime = await repository.runtime_state(write.session)
        applied = _applied(write.revision, found, runtime, dry_run=wanted.dry_run)
        begun = write.once_published(lambda session: _begun(session, write.began))
    if wanted.dry_run:
        return JSONResponse(applied.model_dump(mode="json"))
    made = {"revision": change.revision, "rollout": await begun}
    return await change.answer(applied.model_copy(update=made), 200, tag=revision_tag(change.revision))


async def _begun(session: AsyncSession, number: int | None) -> RolloutDetail | None:
    return None if number is None else await detail(session, number)


async def _progress(request: Request, wanted: _Wanted, change: Change) -> AsyncIterator[bytes]:
    """Report progress while the file is written. Hanging up before the end undoes the write."""
    clients = len(wanted.file.clients or ())
    done: asyncio.Queue[int] = asyncio.Queue()
    work = _put(wanted, change, done.put_nowait)
    task = asyncio.create_task(within_deadline(request, work) if wanted.dry_run else work)
    task.add_done_callback(lambda _: done.put_nowait(-1))
    try:
        while (count := await done.get()) >= 0:
            yield json.dumps({"done": count, "of": clients}).encode() + b"\n"
        try:
            answer = await task
        except ControlPlaneError as error:
            answer = problems.of_error(error)
        yield json.dumps({"status": answer.status_code, "body": json.loads(bytes(answer.body))}).encode() + b"\n"
    finally:
        task.cancel()


def _applied(revision: int, found: list[Difference], runtime: list[dict[str, Any]], *, dry_run: bool) -> ConfigApplied:
    counts: dict[Any, Any] = {}
    for section in SECTION_NAMES:
        actions = Counter(item.action for item in found if item.section == section)
        if actions:
            counts[section] = dict(actions)
    shown = [ConfigChange.model_validate(item) for item in found[:MAX_SHOWN]]
    return ConfigApplied(
        revision=revision,
        dry_run=dry_run,
        counts=counts,
        changes=shown,
        omitted=len(found) - len(shown),
        runtime=[RuntimeState.model_validate(item) for item in runtime],
    )
