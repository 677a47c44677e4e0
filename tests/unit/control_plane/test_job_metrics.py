"""A job's first failure is an increase of its counter."""

from control_plane.database import Database
from control_plane.jobs.registry import Job, Registry
from control_plane.jobs.runner import JobRunner
from control_plane.metrics import Metrics


async def never() -> str:
    """It is not run here."""
    raise AssertionError


def test_runs_are_counted_from_nought() -> None:
    """Prometheus sees no increase in a series that begins at 1."""
    metrics = Metrics()
    database = Database("postgresql+asyncpg://u@127.0.0.1:1/d", connect_timeout_s=1, command_timeout_s=1, pool_size=2)
    JobRunner(database, Registry([Job("upkeep", 60.0, never)]), "r", metrics)
    shown = metrics.render().decode()
    for outcome in ("done", "failed"):
        assert f'tidegate_control_plane_job_runs_total{{name="upkeep",outcome="{outcome}"}} 0.0' in shown
