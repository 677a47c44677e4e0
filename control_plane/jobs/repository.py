"""Queries on jobs and their leader."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.jobs.models import JobRow, Leader

REQUEST_CHANNEL = "tidegate_jobs"


async def row(session: AsyncSession, job: str) -> JobRow | None:
    """One job's record; none before it first ran or was asked for."""
    return await session.get(JobRow, job)


async def rows(session: AsyncSession) -> Sequence[JobRow]:
    """Every job's record."""
    return (await session.scalars(select(JobRow))).all()


async def started(session: AsyncSession, job: str, replica: str) -> None:
    """A run began on ``replica``."""
    values = {"replica": replica, "started_at": func.now(), "next_run_at": None}
    statement = insert(JobRow).values(job=job, runs=0, failures=0, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["job"], set_=values))


async def finished(
    session: AsyncSession, job: str, *, outcome: str, detail: str, duration_ms: int, next_in_s: float | None
) -> None:
    """The run ended."""
    values = {
        "finished_at": func.now(),
        "duration_ms": duration_ms,
        "outcome": outcome,
        "detail": detail,
        "next_run_at": None if next_in_s is None else func.now() + timedelta(seconds=next_in_s),
        "runs": JobRow.runs + 1,
        "failures": JobRow.failures + (1 if outcome == "failed" else 0),
    }
    await session.execute(update(JobRow).where(JobRow.job == job).values(**values))


async def request(session: AsyncSession, job: str, by: str) -> None:
    """Ask the leader, whichever replica it is, to run the job now."""
    values = {"requested_at": func.now(), "requested_by": by}
    statement = insert(JobRow).values(job=job, runs=0, failures=0, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["job"], set_=values))
    await session.execute(select(func.pg_notify(REQUEST_CHANNEL, job)))


async def due_in_s(session: AsyncSession) -> dict[str, float]:
    """How many seconds from now each job that ever ran is due; a requested job that did not run: at once."""
    unserved = JobRow.requested_at > func.coalesce(JobRow.started_at, func.to_timestamp(0))
    left_s = func.extract("epoch", JobRow.next_run_at - func.now())
    found = await session.execute(select(JobRow.job, left_s, unserved))
    return {job: 0.0 if asked or left is None else max(0.0, float(left)) for job, left, asked in found}


async def became_leader(session: AsyncSession, replica: str) -> None:
    """Record the leader."""
    values = {"replica": replica, "since": func.now()}
    statement = insert(Leader).values(id=1, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


async def leader(session: AsyncSession) -> Leader | None:
    """The newest leader."""
    return await session.get(Leader, 1)
