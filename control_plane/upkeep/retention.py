"""The job that lets go of history: tombstones, revisions, the audit log, answers that were kept, old reports."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from control_plane.audit import repository as audit
from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.nodes import repository as nodes
from control_plane.publishing import repository as publishing
from control_plane.quotas import repository as quotas
from control_plane.replays import repository as replays

EVERY_S = 3600.0
MOST_A_RUN = 50_000
REPLAYS_KEPT = timedelta(days=1)
REPORTS_KEPT = timedelta(hours=1)
"""No roll-out looks back further."""


@dataclass(frozen=True)
class Kept:
    """How long things are kept, in days."""

    tombstones: int
    revisions: int
    audit: int


def retention_job(database: Database, kept: Kept) -> Job:
    """Forget what is older than the settings say."""

    async def in_one(forget: Callable[..., Awaitable[int]], *arguments: datetime | int) -> int:
        async with database.transaction() as session:
            return await forget(session, *arguments)

    async def run() -> str:
        now = datetime.now(UTC)
        counts = {
            "tombstones": await in_one(publishing.forget_tombstones, now - timedelta(days=kept.tombstones)),
            "revisions": await in_one(publishing.forget_revisions, now - timedelta(days=kept.revisions), MOST_A_RUN),
            "entries of the audit log": await in_one(audit.retain, now - timedelta(days=kept.audit), MOST_A_RUN),
            "kept answers": await in_one(replays.forget, now - REPLAYS_KEPT),
            "reports of nodes": await in_one(nodes.forget_reports, now - REPORTS_KEPT),
            "moves of limits that are gone": await in_one(quotas.forget_orphans, now - timedelta(days=kept.revisions)),
        }
        return "Forgot " + ", ".join(f"{count} {what}" for what, count in counts.items()) + "."

    return Job("retention", EVERY_S, run)
