"""Reports of nodes' decisions, collected in memory and written by one statement at each heartbeat."""

from datetime import datetime
from typing import Any

from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.nodes import repository as nodes
from tidegate.contract.status import NodeReport

MAX_WAITING = 20_000


class Reports:
    """Reports received by this replica."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[dict[str, Any]] = []

    def take(self, region: str, report: NodeReport, at: datetime) -> None:
        """Keep a report; while Postgres is unreachable for long, the oldest are dropped."""
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
        """Write received reports; those that cannot be written are tried again at the next heartbeat."""
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        try:
            async with self._database.transaction() as session:
                await nodes.store_reports(session, rows)
        except UnavailableError:
            self._waiting = rows + self._waiting
