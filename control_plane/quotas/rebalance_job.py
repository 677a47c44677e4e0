"""``auto`` shares follow demand: the job that looks, decides by ``rebalancing``, and says why."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.limits.models import LimitRow
from control_plane.limits.rules import fractions_of
from control_plane.publishing.writer import ConfigWriter
from control_plane.quotas import repository
from control_plane.quotas.rebalancing import Balance, Balancing, balance
from control_plane.quotas.schemas import SharesRecord
from control_plane.quotas.service import publish_limit
from control_plane.regions import repository as regions

DemandSource = Callable[[AsyncSession], Awaitable[Mapping[int, Mapping[str, float]]]]
"""What was lately asked of each limit, by rule id and region, in units: admitted and denied together."""
AUTHOR = "rebalancer"


class RebalanceJob:
    """Looks at every limit with ``auto`` shares."""

    def __init__(
        self, database: Database, writer: ConfigWriter, demand: DemandSource, rules: Balancing, every_s: float
    ) -> None:
        self._database = database
        self._writer = writer
        self._demand = demand
        self._rules = rules
        self._every_s = every_s

    def job(self) -> Job:
        """The job that does it."""
        return Job("quota-rebalancing", self._every_s, self.run)

    async def run(self) -> str:
        """Balance each limit once; one revision for each that moves."""
        async with self._database.read() as session:
            demand = await self._demand(session)
            names = await regions.names(session)
            rows = await repository.auto_limits(session)
            moving = {row.rule_id for row in await repository.waiting(session) if row.whose in repository.OF_LIMITS}
        moved = 0
        for row in rows:
            asked = demand.get(row.rule_id, {})
            found = _decided(row, names, asked, self._rules, is_moving=row.rule_id in moving)
            moved += await self._store(row.rule_id, found, asked)
        return f"{moved} of {len(rows)} limits with auto shares moved."

    async def _store(self, rule_id: int, found: Balance, asked: Mapping[str, float]) -> bool:
        if found.shares is None:
            async with self._database.transaction() as session:
                await repository.store_balance(session, rule_id, moved=False, reason=found.reason, demand=asked)
            return False
        async with self._writer.begin(AUTHOR, found.reason) as write:
            row = await repository.limit_of(write.session, rule_id)
            if row is None or not row.auto_shares:
                return False
            before = SharesRecord(shares=row.auto_fractions)
            row.auto_fractions = found.shares
            write.record("quota", f"{row.plan or '_'}/{row.name}", before, SharesRecord(shares=found.shares), "update")
            await repository.store_balance(write.session, rule_id, moved=True, reason=found.reason, demand=asked)
            await write.session.flush()
            await publish_limit(write, row)
        return True


def _decided(
    row: LimitRow, names: Sequence[str], asked: Mapping[str, float], rules: Balancing, *, is_moving: bool
) -> Balance:
    if is_moving:
        return Balance(None, "The move before is not complete.")
    if not names:
        return Balance(None, "There is no region.")
    weights = fractions_of(row, names) or dict.fromkeys(names, 1.0)
    total = sum(weights.values())
    return balance({region: weight / total for region, weight in weights.items()}, asked, rules)
