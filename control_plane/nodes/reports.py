"""What nodes report of their decisions, kept in memory until the next beat: one statement for all of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.nodes import repository as nodes
from tidegate.contract.status import NodeReport

MAX_WAITING = 20_000
KEPT = timedelta(hours=1)


class Reports:
    """The reports that came to this replica."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[dict[str, Any]] = []

    def take(self, region: str, report: NodeReport, at: datetime) -> None:
        """Keep a report; while Postgres is away for long the oldest go."""
        self._waiting.append(
            {
                "region": region,
                "node": report.node,
                "at": at,
                "decisions": report.decisions,
                "denied": report.denied,
                "degraded": report.degraded,
            }
        )
        del self._waiting[:-MAX_WAITING]

    async def record(self) -> None:
        """Write what came; what cannot be written now is tried again with the next beat."""
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        try:
            async with self._database.transaction() as session:
                await nodes.store_reports(session, rows)
        except UnavailableError:
            self._waiting = rows + self._waiting


async def forget_old(database: Database) -> int:
    """Drop reports that no roll-out looks at any more; says how many."""
    async with database.transaction() as session:
        return await nodes.forget_reports(session, datetime.now(UTC) - KEPT)
