"""The second half of every move: once each cut is acknowledged, the raise. All its state is in Postgres."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import structlog
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.errors import ConflictError
from control_plane.jobs.registry import Job
from control_plane.quotas import repository
from control_plane.quotas.guard import keep_schedule, schedule_of
from control_plane.quotas.models import QuotaMove
from control_plane.quotas.moving import SKEW_US, acknowledged, limit_units, raise_at_us
from control_plane.quotas.schemas import SharesRecord
from control_plane.quotas.service import publish_limit
from control_plane.quotas.waiting import Situation, look
from control_plane.quotas.windows import next_start_us
from control_plane.rollout import nodes
from control_plane.rollout.writer import ConfigWrite, ConfigWriter

EVERY_S = 1.0
CUT_AGAIN_S = 20.0
"""A node that died between applying a cut and saying so never says it: the cut is then made once more."""
AUTHOR = "quotas"
_log = structlog.stdlib.get_logger("tidegate.quotas")


class QuotaMover:
    """Takes every move that waits as far as it can go now."""

    def __init__(self, database: Database, writer: ConfigWriter, heartbeat_s: float, now_us: Callable[[], int]) -> None:
        self._database = database
        self._writer = writer
        self._heartbeat_s = heartbeat_s
        self._now_us = now_us

    def job(self) -> Job:
        """The job that does it every second."""
        return Job("quota-moves", EVERY_S, self.run)

    async def run(self) -> str:
        """One look at every move."""
        async with self._database.read() as session:
            ready = [move.rule_id for move in await repository.waiting(session) if await self._can_go_on(session, move)]
        for rule_id in ready:
            try:
                async with self._writer.begin(AUTHOR, None) as write:
                    await self._go_on(write, rule_id)
            except ConflictError as error:
                _log.warning("a quota must wait", rule_id=rule_id, reason=str(error))
        return f"{len(ready)} moves went on." if ready else "No move can go on."

    async def _can_go_on(self, session: AsyncSession, move: QuotaMove) -> bool:
        found = await look(session, move, self._heartbeat_s)
        if found is None:
            return False
        rule, _, seen = found
        if seen.waiting_for:
            return self._must_cut_again(move, seen)
        return rule.mode == "strict" or move.raise_at_us is None or self._now_us() >= move.raise_at_us

    def _must_cut_again(self, move: QuotaMove, seen: Situation) -> bool:
        age_s = (datetime.now(UTC) - move.cut_at).total_seconds()
        return len(seen.silent) == len(seen.waiting_for) and age_s > CUT_AGAIN_S

    async def _go_on(self, write: ConfigWrite, rule_id: int) -> None:
        move = (await repository.moves(write.session, [rule_id])).get(rule_id)
        found = None if move is None or not move.waiting else await look(write.session, move, self._heartbeat_s)
        if move is None or found is None:
            return
        rule, schedule, seen = found
        now_us = self._now_us()
        if seen.silent:
            again = msgspec.structs.replace(schedule.steps[-1], from_us=now_us if len(schedule.steps) > 1 else 0)
            keep_schedule(move, msgspec.structs.replace(schedule, steps=(*schedule.steps[:-1], again)))
            move.cut_revision, move.cut_at = write.next_revision, func.now()
            write.reason = f"{rule.name}: cut again, since {', '.join(seen.silent)} did not say from when on it holds"
        elif rule.mode != "strict" and move.raise_at_us is None:
            move.raise_at_us = raise_at_us(rule, now_us)
            return
        else:
            # without a word from any node, nothing was spent under the old shares by who could have said it
            free_us = next_start_us(rule, now_us + SKEW_US) if seen.effective_us is None else seen.effective_us
            keep_schedule(move, acknowledged(schedule, free_us))
            await nodes.forget_effects(write.session, rule_id)
            write.reason = f"{rule.name}: every cut is acknowledged" + (f" ({move.reason})" if move.reason else "")
        await write.session.flush()
        # said in so many words: the log's entry of the document would not be what a rollback can read
        before = SharesRecord(shares=limit_units(rule, schedule.steps[-1]))
        after = SharesRecord(shares=limit_units(rule, schedule_of(move).steps[-1]))
        write.record("quota", f"{move.plan or '_'}/{rule.name}", before, after, "update")
        row = await repository.limit_of(write.session, rule_id)
        if row is not None:
            await publish_limit(write, row)
