"""``/v1/jobs``: what runs on a schedule, how it went, and running it now."""

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import Response

from control_plane.access.principals import Caller, by_method
from control_plane.audit import repository as audit
from control_plane.audit.repository import Origin
from control_plane.database import Database
from control_plane.errors import NotFoundError
from control_plane.jobs import repository
from control_plane.jobs.registry import Job, Registry
from control_plane.jobs.schemas import JobListing, JobView, LeaderView
from control_plane.replays.service import replay_of
from control_plane.web.fields import Reason
from control_plane.web.waiting import wanted_wait_s

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[Depends(by_method)])
JobName = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,64}$", examples=["drift-check"])]
LOOK_S = 0.05


@router.get("")
async def list_jobs(request: Request) -> JobListing:
    """Every job by name, and the replica that runs them."""
    database, registry = _parts(request)
    async with database.read() as session:
        rows = {row.job: row for row in await repository.rows(session)}
        leader = await repository.leader(session)
    items = [JobView.of(job, rows.get(job.name)) for job in registry]
    return JobListing(items=items, leader=None if leader is None else LeaderView.model_validate(leader))


@router.get("/{job}", response_model=JobView)
async def get_job(request: Request, job: JobName) -> JobView:
    """One job."""
    database, registry = _parts(request)
    return await _view(database, _existing(registry, job))


@router.post(
    "/{job}/run",
    status_code=202,
    response_model=JobView,
    responses={200: {"model": JobView, "description": "The run ended; `last_outcome` says how."}},
)
async def run_job(
    request: Request,
    caller: Caller,
    job: JobName,
    reason: Reason,
    prefer: Annotated[str | None, Header(description="`wait=5`: answer when the run ended")] = None,
) -> Response:
    """Ask the leader to run a job now, whichever replica that is. If it runs already, it runs once more.

    Under an `Idempotency-Key` it is asked for once: the same request gets the same answer again.
    """
    database, registry = _parts(request)
    known = _existing(registry, job)
    replay = await replay_of(request, database, caller.id or caller.name)
    async with database.transaction() as session:
        if replay is not None:
            await replay.claim(session)
        await repository.request(session, known.name, caller.name)
        run = audit.Event("run", "job", known.name, None, None)
        origin = Origin(caller.role, request.scope.get("request_id"), request.client.host if request.client else None)
        await audit.store(session, [run], author=caller.name, reason=reason, origin=origin)
    view = await _view(database, known)
    headers, status = {}, 202
    wait_s = wanted_wait_s(prefer)
    if wait_s is not None and view.requested_at is not None:
        ended = await _ended(database, known, view.requested_at, wait_s)
        if ended is not None:
            view, headers, status = ended, {"Preference-Applied": "wait"}, 200
    body = view.model_dump_json()
    headers["Content-Type"] = "application/json"
    if replay is not None:
        await replay.keep(status, headers, body, None)
    return Response(body, status, headers)


async def _ended(database: Database, job: Job, asked_at: datetime, wait_s: float) -> JobView | None:
    deadline = asyncio.get_running_loop().time() + wait_s
    while asyncio.get_running_loop().time() < deadline:
        view = await _view(database, job)
        if not view.running and view.last_started_at is not None and view.last_started_at >= asked_at:
            return view
        await asyncio.sleep(LOOK_S)
    return None


async def _view(database: Database, job: Job) -> JobView:
    async with database.read() as session:
        return JobView.of(job, await repository.row(session, job.name))


def _existing(registry: Registry, name: str) -> Job:
    job = registry.get(name)
    if job is None:
        raise NotFoundError(f"There is no job named {name}.")
    return job


def _parts(request: Request) -> tuple[Database, Registry]:
    return request.state.database, request.state.jobs
