"""The leader's work: runs each job when it is due or requested, never twice at once, and records the outcome."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from control_plane.database import Database, translated
from control_plane.errors import ControlPlaneError, UnavailableError
from control_plane.jobs import repository
from control_plane.jobs.registry import Job, Registry
from control_plane.metrics import Metrics

MAX_DETAIL_LENGTH = 500
CLOCK_LOOK_S = 5.0
CLOCK_STEP_S = 1.0
_log = structlog.stdlib.get_logger("tidegate.jobs")

RunJob = Callable[[Job], Awaitable[None]]


class JobRunner:
    """The leader's work; ``lead`` is what :class:`~control_plane.jobs.leadership.Leadership` calls."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        replica: str,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._database = database
        self._registry = registry
        self._replica = replica
        self._metrics = metrics
        self._went_well: set[str] = set()
        """The jobs whose last run in this term went well."""
        for job in registry:
            metrics.job_known(job.name)

    async def lead(self, connection: asyncpg.Connection) -> None:
        """Run the jobs until cancelled, from where the leader before stopped.

        It ends where the clock is set back: the scheduler would wait until the old time comes again.
        """
        asked: asyncio.Queue[str] = asyncio.Queue()
        with translated():
            # before reading what is due, so that no request is missed
            await connection.add_listener(repository.REQUEST_CHANNEL, lambda *call: asked.put_nowait(call[3]))
        async with self._database.transaction() as session:
            await repository.became_leader(session, self._replica)
            due_in_s = await repository.due_in_s(session)
        self._went_well.clear()
        term = _Term(self._run, self._run_due)
        try:
            now = datetime.now(UTC)
            for job in self._registry:
                term.add(job, now + timedelta(seconds=min(due_in_s.get(job.name, 0.0), job.every_s)))
            most_s = self._ahead_s()
            while (ahead_s := self._ahead_s()) > most_s - CLOCK_STEP_S:
                most_s = max(most_s, ahead_s)
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOCK_LOOK_S):
                        wanted = self._registry.get(await asked.get())
                    if wanted is not None:
                        term.run_now(wanted)
            _log.warning("the clock was set back: jobs are planned anew")
        finally:
            await term.end()

    def _ahead_s(self) -> float:
        return self._clock() - time.monotonic()

    async def _run_due(self, job: Job) -> None:
        """Run the job, unless it would find nothing to do."""
        if job.name in self._went_well and await _is_idle(job):
            self._metrics.job_ran(job.name, "done", 0.0)
        else:
            await self._run(job)

    async def _run(self, job: Job) -> None:
        began = time.monotonic()
        idle = False
        self._went_well.discard(job.name)
        outcome, detail = "failed", "The run was cancelled."
        try:
            async with self._database.transaction() as session:
                await repository.started(session, job.name, self._replica)
            async with asyncio.timeout(job.timeout_s):
                detail = await job.run()
                idle = await _is_idle(job)
            outcome = "done"
            self._went_well.add(job.name)
        except TimeoutError:
            detail = f"The run took longer than {job.timeout_s:g} s."
        except ControlPlaneError as error:
            detail = str(error)
        except Exception as error:  # noqa: BLE001  one job's bug must not end the others; it is recorded and logged
            detail = f"{type(error).__name__}; the log has more."
            _log.error("job failed", job=job.name, exc_info=error)
        took_s = time.monotonic() - began
        next_in_s = None if idle else max(0.0, job.every_s - took_s, job.rest_s(took_s))
        self._metrics.job_ran(job.name, outcome, took_s)
        if outcome == "failed":
            _log.warning("job failed", job=job.name, detail=detail)
        try:
            async with self._database.transaction() as session:
                await repository.finished(
                    session,
                    job.name,
                    outcome=outcome,
                    detail=detail[:MAX_DETAIL_LENGTH],
                    duration_ms=round(took_s * 1000),
                    next_in_s=next_in_s,
                )
        except UnavailableError:
            _log.warning("a job's outcome was not recorded", job=job.name)


async def _is_idle(job: Job) -> bool:
    try:
        async with asyncio.timeout(job.timeout_s):
            return await job.idle()
    except (ControlPlaneError, TimeoutError):  # the run will say it
        return False


class _Term:
    """One leadership: a scheduler and its running jobs."""

    def __init__(self, run: RunJob, run_due: RunJob) -> None:
        self._run = run
        self._run_due = run_due
        self._running: dict[str, asyncio.Future[None]] = {}
        self._again: set[str] = set()
        self._rests_until: dict[str, float] = {}
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.start()

    def add(self, job: Job, first: datetime) -> None:
        """Run ``job`` at ``first`` and then every ``every_s``; missed runs are made up by one."""
        self._scheduler.add_job(
            self._due, "interval", seconds=job.every_s, args=[job], id=job.name, next_run_time=first,
            coalesce=True, misfire_grace_time=None,
        )  # fmt: skip

    def run_now(self, job: Job) -> None:
        """Run ``job`` at once, or once more if it is running, as that run may have read older data."""
        if job.name in self._running:
            self._again.add(job.name)
        else:
            self._begin(job, self._run)

    async def end(self) -> None:
        """Cancel all runs."""
        self._scheduler.remove_all_jobs()
        self._scheduler.shutdown(wait=False)
        self._again.clear()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _due(self, job: Job) -> None:
        if job.name not in self._running and time.monotonic() >= self._rests_until.get(job.name, 0.0):
            self._begin(job, self._run_due)

    def _begin(self, job: Job, run: RunJob) -> None:
        began = time.monotonic()
        task = asyncio.ensure_future(run(job))
        self._running[job.name] = task
        task.add_done_callback(lambda _: self._ended(job, time.monotonic() - began))

    def _ended(self, job: Job, took_s: float) -> None:
        del self._running[job.name]
        self._rests_until[job.name] = time.monotonic() + job.rest_s(took_s)
        if job.name in self._again:
            self._again.discard(job.name)
            self._begin(job, self._run)
