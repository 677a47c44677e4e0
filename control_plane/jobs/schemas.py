"""What is shown of jobs."""

from datetime import datetime
from typing import Literal, cast

from control_plane.jobs.models import JobRow
from control_plane.jobs.registry import Job
from control_plane.web.fields import View

Outcome = Literal["done", "failed"]


class JobView(View):
    """A job, its last run, and when it runs next. Times are null before it first ran."""

    job: str
    every_s: float
    running: bool
    replica: str | None
    """Where it last ran."""
    last_started_at: datetime | None
    last_finished_at: datetime | None
    last_duration_s: float | None
    last_outcome: Outcome | None
    last_detail: str | None
    """What the last run did, or why it failed."""
    next_run_at: datetime | None
    """Null too while it has nothing to do."""
    runs: int
    failures: int
    requested_at: datetime | None
    """When a run was last asked for by hand."""
    requested_by: str | None

    @classmethod
    def of(cls, job: Job, row: JobRow | None) -> "JobView":
        """Show a job beside its record."""
        row = row or JobRow(job=job.name, runs=0, failures=0)
        running = row.started_at is not None and (row.finished_at is None or row.finished_at < row.started_at)
        return cls(
            job=job.name,
            every_s=job.every_s,
            running=running,
            replica=row.replica,
            last_started_at=row.started_at,
            last_finished_at=row.finished_at,
            last_duration_s=None if row.duration_ms is None else row.duration_ms / 1000,
            last_outcome=cast("Outcome | None", row.outcome),
            last_detail=row.detail,
            next_run_at=row.next_run_at,
            runs=row.runs,
            failures=row.failures,
            requested_at=row.requested_at,
            requested_by=row.requested_by,
        )


class LeaderView(View):
    """The replica that runs the jobs, as far as is written down."""

    replica: str
    since: datetime


class JobListing(View):
    """Every job, and who runs them."""

    items: list[JobView]
    leader: LeaderView | None
