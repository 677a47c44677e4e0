"""Moves a roll-out from one node to a region to all nodes, or back; the leader checks it every second."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.canary import repository as rollouts
from control_plane.canary.models import RolloutRow
from control_plane.canary.schemas import RolloutOutcome, State
from control_plane.database import Database
from control_plane.errors import ConflictError, NotFoundError
from control_plane.jobs.registry import Job
from control_plane.nodes import repository as nodes
from control_plane.nodes.repository import ConnectedNode, Decided, MissingNode
from control_plane.orm import present
from control_plane.publishing import repository
from control_plane.publishing.writer import ConfigWrite, ConfigWriter

EVERY_S = 1.0
BASELINE = timedelta(minutes=15)
"""The period before a roll-out whose rates are compared."""
LOST_S = 30.0
"""A node without an ACK, or without a connection, for this time is lost."""
UNWATCHED_S = 10.0
"""After a longer pause between two checks all nodes get ``LOST_S`` to come back."""
SHOWN = 5
AUTHOR = "roll-out"
_log = structlog.stdlib.get_logger("tidegate.rollout")

Undo = Callable[[ConfigWrite, int], Awaitable[None]]
"""Bring back, in tables and documents, what one revision changed."""


class Step(NamedTuple):
    """The next action: ``go_on``, ``replace`` (the canary), ``roll_back`` or ``wait``; and the reason."""

    what: str
    why: str


class RolloutEngine:
    """Advances one roll-out at a time; its state is in Postgres, so that any leader can continue."""

    def __init__(self, database: Database, writer: ConfigWriter, undo: Undo, heartbeat_s: float) -> None:
        self._database = database
        self._writer = writer
        self._undo = undo
        self._heartbeat_s = heartbeat_s
        self._watched_since: datetime | None = None
        self._looked_at: datetime | None = None
        self._idle_at: int | None = None
        """The revision at which no roll-out was under way."""

    def job(self, revision: Callable[[], int]) -> Job:
        """The job that advances roll-outs every second; while none is under way it waits for another ``revision``."""

        async def idle() -> bool:
            return self._idle_at == revision()

        return Job("roll-outs", EVERY_S, self.run, idle=idle)

    async def run(self) -> str:
        """Check and advance the roll-out that is under way."""
        async with self._database.read() as session:
            head = await repository.whole_head(session)
            number = head.rollout
            self._idle_at = head.revision if number is None else None
            if number is None:
                return "No roll-out is under way."
            step = await self._next(session, number)
        if step.what != "wait":
            step = await self._advance(number)
        return f"Revision {number}: {step.why}."

    async def release(self, write: ConfigWrite, number: int, reason: str) -> None:
        """Send the head to all nodes with this write's revision, whatever they report."""
        row = await _under_way(write.session, number)
        write.reason = f"Roll-out of revision {number} to every node: {reason}"
        _finish(write, row, "done", reason)

    async def take_back(self, write: ConfigWrite, number: int, reason: str) -> None:
        """Stop, and take back the roll-out on every node with this write's revision."""
        row = await _under_way(write.session, number)
        write.reason = f"Roll-out of revision {number} stopped: {reason}"
        await self._undo(write, number)
        _finish(write, row, "rolled_back", reason)

    async def _next(self, session: AsyncSession, number: int) -> Step:
        row = await _under_way(session, number)
        now = await present(session)
        watched_since = self._watch(now)
        connected = nodes.deciding(await nodes.connected(session, self._heartbeat_s))
        stage = [node for node in connected if node.region == row.region and row.node in ("", node.node)]
        refusal = await nodes.refusal_since(session, row.number, row.region, row.node)
        if refusal is not None:
            return Step("roll_back", refusal)
        missing = await nodes.missing(session, row.stage_revision, row.region, row.node, self._heartbeat_s)
        lost = [node for node in missing if _seconds(now, max(node.since, watched_since)) > LOST_S]
        loss = _loss(row, lost, stage)
        if loss is not None:
            return Step("roll_back", loss)
        if not stage:
            absent_s = _seconds(now, max(row.stage_at, watched_since))
            return _without_stage(row, absent_s, had_it=bool(missing), others=bool(connected))
        behind = [node for node in stage if node.applied_revision < row.stage_revision]
        if behind:
            return Step("wait", f"{len(behind)} of {len(stage)} nodes of the stage have not applied it")
        return await self._once_applied(session, row, stage, now)

    async def _once_applied(
        self, session: AsyncSession, row: RolloutRow, stage: Sequence[ConnectedNode], now: datetime
    ) -> Step:
        worse = await self._worse(session, row, stage)
        if worse is not None:
            return Step("roll_back", worse)
        pause_s = row.node_pause_s if row.state == "node" else row.region_pause_s
        seen_s = 0.0 if row.acked_at is None else _seconds(now, _whole_since(row, row.acked_at, stage))
        if row.acked_at is None or seen_s < pause_s:
            await self._note_acked(row)
            return Step("wait", f"{len(stage)} nodes have had it for {seen_s:.0f} of {pause_s:.0f} s")
        return Step("go_on", f"{len(stage)} nodes had it for {seen_s:.0f} s without trouble")

    def _watch(self, now: datetime) -> datetime:
        """Since when this process has checked without a pause; it may be a new leader, or Postgres was unreachable."""
        if self._watched_since is None or self._looked_at is None or _seconds(now, self._looked_at) > UNWATCHED_S:
            self._watched_since = now
        self._looked_at = now
        return self._watched_since

    async def _worse(self, session: AsyncSession, row: RolloutRow, stage: Sequence[ConnectedNode]) -> str | None:
        before = await nodes.decided(session, stage, row.started_at - BASELINE, row.started_at)
        return worsening(row, before, await nodes.decided(session, stage, row.acked_at or row.stage_at))

    async def _note_acked(self, row: RolloutRow) -> None:
        if row.acked_at is not None:
            return
        async with self._database.transaction() as session:
            await rollouts.note_acked(session, row.number)

    async def _advance(self, number: int) -> Step:
        async with self._writer.begin(AUTHOR, None) as write:
            # looked at again: while this write waited for its turn another one may have moved it
            step = await self._next(write.session, number)
            if step.what == "roll_back":
                await self.take_back(write, number, step.why)
            elif step.what != "wait":
                await self._move(write, number, step)
        if step.what == "roll_back":
            _log.error("roll-out stopped", revision=number, reason=step.why)
        return step

    async def _move(self, write: ConfigWrite, number: int, step: Step) -> None:
        row = await _under_way(write.session, number)
        if step.what == "replace":
            connected = nodes.deciding(await nodes.connected(write.session, self._heartbeat_s))
            here = [node for node in connected if node.region == row.region] or connected
            write.placement.move(here[0].region, here[0].node)
            where = f"{here[0].region}/{here[0].node}"
        elif row.state == "node" and len(await nodes.connected(write.session, self._heartbeat_s)) > 1:
            write.placement.move(row.region, "")
            where = f"all of {row.region}"
        else:
            _finish(write, row, "done", step.why)
            where = "every node"
        write.reason = f"Roll-out of revision {number} to {where}: {step.why}"


def _loss(row: RolloutRow, lost: Sequence[MissingNode], stage: Sequence[ConnectedNode]) -> str | None:
    """Why a stage whose nodes got lost must be rolled back, if it must.

    One node that never answered is enough: it may have crashed because of the revision. A node that had applied it may
    have been removed for another reason; so these must be at least as many as those that are left.
    """
    for node in lost:
        if not node.applied:
            return f"{node.region}/{node.node} got revision {row.stage_revision} and has not applied it in {LOST_S:g} s"
    left = [node for node in stage if node.applied_revision >= row.stage_revision]
    if lost and len(lost) >= len(left):
        names = ", ".join(f"{node.region}/{node.node}" for node in lost[:SHOWN])
        return f"{len(lost)} nodes that applied revision {row.stage_revision} are gone: {names}"
    return None


def _without_stage(row: RolloutRow, absent_s: float, *, had_it: bool, others: bool) -> Step:
    """The action while no node of the stage is connected. A canary that may have crashed because of it stays."""
    if had_it or absent_s <= LOST_S:
        return Step("wait", "no node of the stage is connected")
    if row.state == "region":
        return Step("roll_back", f"no node of {row.region} is connected")
    if others:
        return Step("replace", f"the canary {row.region}/{row.node} is not connected")
    return Step("wait", "no node is connected")


def _whole_since(row: RolloutRow, acked_at: datetime, stage: Sequence[ConnectedNode]) -> datetime:
    """When the pause of a stage began: for a canary that came back, when it did."""
    came_back = [node.opened_at for node in stage if node.opened_at is not None] if row.state == "node" else []
    return max([acked_at, *came_back])


def _finish(write: ConfigWrite, row: RolloutRow, state: State, outcome: str) -> None:
    before = RolloutOutcome(state=cast("State", row.state), outcome=None)
    write.record("rollout", str(row.number), before, RolloutOutcome(state=state, outcome=outcome))
    write.placement.finish(state, outcome)


async def _under_way(session: AsyncSession, number: int) -> RolloutRow:
    row = await rollouts.rollout(session, number, with_held=True)
    if row is None:
        raise NotFoundError(f"No roll-out began with revision {number}.")
    if row.state in {"done", "rolled_back"}:
        raise ConflictError(f"The roll-out of revision {number} is over: {row.outcome or row.state}.")
    return row


def _seconds(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds()


def worsening(rollout: RolloutRow, before: Decided, now: Decided) -> str | None:
    """Why the roll-out must stop, by the rates of its stage's nodes before and during it; ``None`` if it may go on.

    Too few decisions on either side are no evidence.
    """
    if now.decisions < rollout.min_decisions or before.decisions < rollout.min_decisions:
        return None
    for kind, count_before, count, max_rise in (
        ("denials", before.denied, now.denied, rollout.max_denial_rise),
        ("degraded decisions", before.degraded, now.degraded, rollout.max_degraded_rise),
    ):
        rate_before, rate = count_before / before.decisions, count / now.decisions
        if rate - rate_before > max_rise:
            return f"{kind} rose from {rate_before:.1%} to {rate:.1%} of {now.decisions} decisions"
    return None
