"""The job that lets go of history: tombstones, revisions, the audit log, answers that were kept, old reports."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select

from control_plane.audit import repository as audit
from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.nodes.reports import forget_old
from control_plane.publishing import repository
from control_plane.publishing.models import ConfigDocument, Revision
from control_plane.quotas import repository as quotas
from control_plane.replays.models import ReplayRow

EVERY_S = 3600.0
MOST_A_RUN = 50_000
REPLAYS_KEPT = timedelta(days=1)


@dataclass(frozen=True)
class Kept:
    """How long things are kept, in days."""

    tombstones: int
    revisions: int
    audit: int


def retention_job(database: Database, kept: Kept) -> Job:
    """Forget what is older than the settings say."""

    async def run() -> str:
        now = datetime.now(UTC)
        counts = {
            "tombstones": await forget_tombstones(database, now - timedelta(days=kept.tombstones)),
            "revisions": await forget_revisions(database, now - timedelta(days=kept.revisions)),
            "entries of the audit log": await _audit(database, now - timedelta(days=kept.audit)),
            "kept answers": await _replays(database, now - REPLAYS_KEPT),
            "reports of nodes": await forget_old(database),
            "moves of limits that are gone": await _orphans(database, now - timedelta(days=kept.revisions)),
        }
        return "Forgot " + ", ".join(f"{count} {what}" for what, count in counts.items()) + "."

    return Job("retention", EVERY_S, run)


async def forget_tombstones(database: Database, before: datetime) -> int:
    """Forget which documents are gone since before then. A node that is older than that gets a snapshot."""
    async with database.transaction() as session:
        head = await repository.lock_head(session)
        newest = await session.scalar(select(func.max(Revision.number)).where(Revision.created_at < before))
        if newest is None or newest <= head.deltas_from:
            return 0
        head.deltas_from = newest
        gone = delete(ConfigDocument).where(ConfigDocument.body.is_(None), ConfigDocument.revision <= newest)
        return len((await session.scalars(gone.returning(ConfigDocument.id))).all())


async def forget_revisions(database: Database, before: datetime) -> int:
    """Forget what revisions changed; the newest, and what nodes outside a roll-out have, always stay."""
    async with database.transaction() as session:
        head = await repository.whole_head(session)
        oldest = min(head.revision, head.stable_revision or head.revision)
        due = select(Revision.number).where(Revision.created_at < before, Revision.number < oldest)
        due = due.order_by(Revision.number).limit(MOST_A_RUN)
        gone = delete(Revision).where(Revision.number.in_(due))
        return len((await session.scalars(gone.returning(Revision.number))).all())


async def _audit(database: Database, before: datetime) -> int:
    async with database.transaction() as session:
        return await audit.retain(session, before, MOST_A_RUN)


async def _replays(database: Database, before: datetime) -> int:
    async with database.transaction() as session:
        gone = delete(ReplayRow).where(ReplayRow.created_at < before).returning(ReplayRow.idempotency_key)
        return len((await session.scalars(gone)).all())


async def _orphans(database: Database, before: datetime) -> int:
    async with database.transaction() as session:
        return await quotas.forget_orphans(session, before)
