"""The two jobs of shares: the raise once each cut is acknowledged, and ``auto`` shares that follow demand."""

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.errors import ConflictError
from control_plane.jobs.registry import Job
from control_plane.limits.models import LimitRow
from control_plane.limits.repository import quota_key
from control_plane.limits.service import fractions_of
from control_plane.nodes import repository as nodes
from control_plane.orm import present
from control_plane.publishing.repository import head
from control_plane.publishing.writer import ConfigWrite, ConfigWriter
from control_plane.quotas import repository
from control_plane.quotas.models import THE_LIMIT, QuotaMove
from control_plane.quotas.rebalancing import Balance, Balancing, balance
from control_plane.quotas.repository import ShareOwner
from control_plane.quotas.scheduling import AckStatus, ack_status, keep_schedule, schedule_of
from control_plane.quotas.schemas import SharesRecord
from control_plane.quotas.service import publish_limit
from control_plane.quotas.share_schedule import acknowledged, cut_again, limit_units, raise_at_us
from control_plane.regions import repository as regions
from tidegate.contract.calendar import SKEW_US, next_start_us
from tidegate.contract.limits import LimitRule, ShareStep

ADVANCE_EVERY_S = 1.0
CUT_AGAIN_S = 20.0
"""A node that crashed between applying a cut and its ACK never sends it: the cut is then made once more."""
AUTHOR = "quotas"
DemandSource = Callable[[AsyncSession], Awaitable[Mapping[int, Mapping[str, float]]]]
"""What was lately asked of each limit, by rule id and region, in units: admitted and denied together."""
REBALANCER = "rebalancer"
_log = structlog.stdlib.get_logger("tidegate.quotas")


class AdvanceJob:
    """Takes every move that waits as far as it can go now."""

    def __init__(self, database: Database, writer: ConfigWriter, heartbeat_s: float, now_us: Callable[[], int]) -> None:
        self._database = database
        self._writer = writer
        self._heartbeat_s = heartbeat_s
        self._now_us = now_us
        self._idle_at: int | None = None
        """The revision at which no move waited."""

    def job(self, revision: Callable[[], int]) -> Job:
        """The job that does it every second; while no move waits it waits for another ``revision``."""

        async def idle() -> bool:
            return self._idle_at == revision()

        return Job("quota-moves", ADVANCE_EVERY_S, self.run, idle=idle)

    async def run(self) -> str:
        """One look at every move."""
        async with self._database.read() as session:
            waiting = await repository.waiting(session)
            self._idle_at = None if waiting else (await head(session)).revision
            ready = [
                ShareOwner(move.rule_id, move.whose) for move in waiting if await self._status_if_ready(session, move)
            ]
        for rule_id, those in itertools.groupby(ready, lambda one: one.rule_id):
            try:
                async with self._writer.begin(AUTHOR, None) as write:
                    await self._advance_limit(write, rule_id, [one.whose for one in those])
            except ConflictError as error:
                _log.warning("a quota must wait", rule_id=rule_id, reason=str(error))
        return f"{len(ready)} moves went on." if ready else "No move can go on."

    async def _status_if_ready(self, session: AsyncSession, move: QuotaMove) -> AckStatus | None:
        """The status of a move that can go on now; ``None`` if it must wait, or its limit is gone."""
        status = await ack_status(session, move, self._heartbeat_s)
        if status is None:
            return None
        rule, _, seen = status
        if seen.waiting_for:
            cut_s = (await present(session) - move.cut_at).total_seconds()
            ready = len(seen.unconfirmed) == len(seen.waiting_for) and cut_s > CUT_AGAIN_S
        else:
            ready = rule.mode == "strict" or move.raise_at_us is None or self._now_us() >= move.raise_at_us
        return status if ready else None

    async def _advance_limit(self, write: ConfigWrite, rule_id: int, whose: Sequence[str]) -> None:
        """All that can go on of one limit: they were cut for one reason, and waited for the same nodes."""
        moves = await repository.moves(write.session, [rule_id])
        ready = [move for move in moves.values() if move.whose in whose and move.waiting]
        if not any([await self._advance(write, move) for move in ready]):
            return
        await write.session.flush()
        if not any(move.rule_id == rule_id for move in await repository.waiting(write.session)):
            await nodes.forget_effects(write.session, rule_id)
        row = await repository.limit_of(write.session, rule_id)
        if row is not None:
            await publish_limit(write, row)

    async def _advance(self, write: ConfigWrite, move: QuotaMove) -> bool:
        """Take one move as far as it can go; returns whether nodes must get it."""
        # looked at again: while this write waited for its turn another one may have made a new cut
        status = await self._status_if_ready(write.session, move)
        if status is None:
            return False
        rule, schedule, seen = status
        now_us = self._now_us()
        if seen.unconfirmed:
            keep_schedule(move, cut_again(schedule, now_us))
            move.cut_revision, move.cut_at = write.next_revision, func.now()
            write.reason = (
                f"{rule.name}: cut again, since {', '.join(seen.unconfirmed)} did not confirm from when on it holds"
            )
        elif rule.mode != "strict" and move.raise_at_us is None:
            move.raise_at_us = raise_at_us(rule, now_us)
            return False
        else:
            # no node confirmed an instant, so no node can have spent under the old shares
            free_us = next_start_us(rule, now_us + SKEW_US) if seen.effective_us is None else seen.effective_us
            keep_schedule(move, acknowledged(schedule, free_us))
            write.reason = f"{rule.name}: every cut is acknowledged" + (f" ({move.reason})" if move.reason else "")
        # recorded here, as a rollback cannot read the log's entry of the document
        before, after = (_shares(rule, move, step) for step in (schedule.steps[-1], schedule_of(move).steps[-1]))
        write.record("quota", quota_key(move.plan, rule.name), before, after, "update")
        return True


def _shares(rule: LimitRule, move: QuotaMove, step: ShareStep) -> SharesRecord:
    if move.whose == THE_LIMIT:
        return SharesRecord(shares=limit_units(rule, step))
    return SharesRecord(shares={region: part / step.limit for region, part in step.shares.items()})


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
            moving = {row.rule_id for row in await repository.waiting(session)}
        moved = 0
        for row in rows:
            asked = demand.get(row.rule_id, {})
            found = _decided(row, names, asked, self._rules, is_moving=row.rule_id in moving)
            try:
                moved += await self._store(row.rule_id, found, asked)
            except ConflictError as error:
                _log.warning("a quota must wait", rule_id=row.rule_id, reason=str(error))
        return f"{moved} of {len(rows)} limits with auto shares moved."

    async def _store(self, rule_id: int, found: Balance, asked: Mapping[str, float]) -> bool:
        if found.shares is None:
            async with self._database.transaction() as session:
                await repository.store_balance(session, rule_id, moved=False, reason=found.reason, demand=asked)
            return False
        async with self._writer.begin(REBALANCER, found.reason) as write:
            row = await repository.limit_of(write.session, rule_id)
            if row is None or not row.auto_shares:
                return False
            before = SharesRecord(shares=row.auto_fractions)
            row.auto_fractions = found.shares
            write.record("quota", quota_key(row.plan, row.name), before, SharesRecord(shares=found.shares), "update")
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
