"""Stands between every write and the nodes: a share that would move at once moves by cut and raise instead.

Whatever changes a plan or a limit (an admin, a file, a rollback, a region that comes) publishes the shares that it
wants. Here they are held against what nodes have, and what is published is the first part of the way there.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.limits.models import SPLIT_MODES
from control_plane.limits.service import rules_by_id, rules_in, to_rule
from control_plane.nodes import repository as nodes
from control_plane.publishing.repository import ChangedDocument, DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas import repository
from control_plane.quotas.models import CLIENTS, THE_LIMIT, QuotaMove
from control_plane.quotas.repository import ShareOwner
from control_plane.quotas.share_schedule import (
    Schedule,
    Situation,
    has_windows,
    in_units,
    on_the_way,
    parts_of,
    published,
    retargeted,
    same_shares,
    settled,
    situation,
    target_of,
)
from control_plane.regions import repository as regions
from tidegate.contract.config import DOCUMENT_TYPES, Plan
from tidegate.contract.limits import LimitRule, ShareStep


class _Shares(NamedTuple):
    """Shares that a write may move: of which limit (``plan`` null: outside plans), whose, and the move before."""

    rule: LimitRule
    plan: str | None
    whose: str
    move: QuotaMove | None


async def schedule_shares(write: ConfigWrite, now_us: int) -> None:
    """Put in place of each plan and limit of a write the first part of the way there, from what nodes have."""
    scheduling = _Scheduling(write, now_us)
    wanted = [change for change in await write.documents() if change.key.kind in {"plan", "limit"}]
    for change in wanted:
        await scheduling.keep_gone(change)
    for change in wanted:
        if change.after is not None:
            write.publish(await scheduling.scheduled(change.key, change.before, change.after), change.key)
    if write.staged:
        await scheduling.cut_again(await write.placement.handed_on())


class _Scheduling:
    """One write's limits and their schedules of shares."""

    def __init__(self, write: ConfigWrite, now_us: int) -> None:
        self._write = write
        self._session = write.session
        self._now_us = now_us

    async def keep_gone(self, change: ChangedDocument) -> None:
        """Keep the shares of limits that go: a rollback brings those back under the ids that they had."""
        has = rules_in(change.key, change.after)
        had = rules_in(change.key, change.before)
        gone = [rule for id, rule in had.items() if id not in has and rule.mode in SPLIT_MODES]
        moves = await repository.moves(self._session, [rule.id for rule in gone]) if gone else {}
        for rule in gone:
            kept = {THE_LIMIT: target_of(rule)} | ({CLIENTS: parts_of(rule)} if rule.parts else {})
            for whose, step in kept.items():
                move = moves.get(ShareOwner(rule.id, whose))
                own = _Shares(rule, change.key.id if change.key.kind == "plan" else None, whose, move)
                self._store(own, settled(step) if move is None else schedule_of(move)).waiting = False

    async def scheduled(self, key: DocumentKey, before: str | None, after: str) -> Plan | LimitRule:
        """The document to publish in place of ``after``, where nodes have ``before``."""
        wanted = msgspec.json.decode(after, type=DOCUMENT_TYPES[key.kind])
        had = rules_in(key, before)
        if isinstance(wanted, LimitRule) and not has_windows(wanted):
            wanted = msgspec.structs.replace(wanted, parts=())  # clients have no figures of their own outside plans
        rules = rules_by_id(wanted)
        moves = await repository.moves(self._session, rules)
        plan = key.id if key.kind == "plan" else None
        scheduled = {id: await self._rule(plan, had.get(id), rule, moves) for id, rule in rules.items()}
        afresh = {id for id, _ in moves if rules[id].mode not in SPLIT_MODES}
        if afresh:
            await repository.forget_moves(self._session, afresh)
        return _with_rules(wanted, scheduled)

    async def cut_again(self, keys: Collection[DocumentKey]) -> None:
        """Cuts among documents that a roll-out held back: they wait for the nodes that get them now."""
        plans = {key.id for key in keys if key.kind == "plan"}
        limits = {key.id for key in keys if key.kind == "limit"}
        for move in await repository.waiting(self._session):
            held = move.plan in plans or (move.plan is None and move.limit_name in limits)
            if held:
                # not `cut_at`: nodes of the stage will not speak of it once more, so it need not be waited for
                move.cut_revision, move.raise_at_us = self._write.next_revision, None

    async def _rule(
        self,
        plan: str | None,
        had: LimitRule | None,
        rule: LimitRule,
        moves: Mapping[ShareOwner, QuotaMove],
    ) -> LimitRule:
        if rule.mode not in SPLIT_MODES:
            return rule
        since_us = had.since_us if had is not None else self._now_us
        units, parts = settled(target_of(rule)), settled(parts_of(rule))
        own = _Shares(rule, plan, THE_LIMIT, moves.get(ShareOwner(rule.id, THE_LIMIT)))
        of_clients = _Shares(rule, plan, CLIENTS, moves.get(ShareOwner(rule.id, CLIENTS)))
        if had is None or had.mode not in SPLIT_MODES:
            if own.move is None:
                return published(rule, units, parts, since_us)
            units = schedule_of(own.move)  # it was gone, and is back
        else:
            units, parts = settled(target_of(had)), settled(parts_of(had)) if had.parts else parts
        before = units.target.limit if had is None else had.limit
        parts = await self._towards(of_clients, parts, parts_of(rule))
        if before != rule.limit and has_windows(rule) and on_the_way(rule, parts, self._now_us):
            units = in_units(rule, parts, self._now_us)
            self._keep(own, units)
        else:
            units = await self._towards(own, units, target_of(rule))
        return published(rule, units, parts, since_us)

    async def _towards(self, own: _Shares, now: Schedule, target: ShareStep) -> Schedule:
        """The schedule to ``target``: on from where the move before stands, else from ``now``."""
        schedule = now if own.move is None else schedule_of(own.move)
        if same_shares(schedule.target, target):
            if own.move is None or schedule.waiting > own.move.waiting:
                self._keep(own, schedule)
            return schedule
        spenders = await nodes.regions_with_nodes(self._session)
        schedule = retargeted(own.rule, schedule, target, self._now_us, spenders)
        self._keep(own, schedule)
        return schedule

    def _keep(self, own: _Shares, schedule: Schedule) -> None:
        if own.move is not None or schedule.waiting or len(schedule.steps) > 1:
            self._store(own, schedule)

    def _store(self, own: _Shares, schedule: Schedule) -> QuotaMove:
        move = own.move
        if move is None:
            move = QuotaMove(rule_id=own.rule.id, whose=own.whose)
            self._session.add(move)
        move.plan, move.limit_name = own.plan, own.rule.name
        move.cut_revision, move.cut_at = self._write.next_revision, func.now()
        move.author, move.reason = self._write.author, self._write.reason
        move.freed, move.raise_at_us = [], None
        keep_schedule(move, schedule)
        return move


def schedule_of(move: QuotaMove) -> Schedule:
    """A move's schedule."""
    return msgspec.convert(move.schedule, Schedule)


async def ack_status(
    session: AsyncSession, move: QuotaMove, heartbeat_s: float
) -> tuple[LimitRule, Schedule, Situation] | None:
    """A move's rule, its schedule, and the nodes whose ACK of the cut is missing; ``None`` if the limit is gone."""
    row = await repository.limit_of(session, move.rule_id)
    if row is None:
        return None
    names = await regions.names(session)
    rule, schedule = to_rule(row, names), schedule_of(move)
    connected = await nodes.connected(session, heartbeat_s)
    effects = await nodes.effects(session, move.rule_id, move.cut_revision)
    return rule, schedule, situation(rule, schedule, move.cut_revision, move.freed, names, connected, effects)


def keep_schedule(move: QuotaMove, schedule: Schedule) -> None:
    """Write the schedule into its row."""
    move.schedule, move.waiting = msgspec.to_builtins(schedule), schedule.waiting


def _with_rules(document: msgspec.Struct, rules: Mapping[int, LimitRule]) -> Plan | LimitRule:
    if isinstance(document, Plan):
        return msgspec.structs.replace(document, limits=tuple(rules[rule.id] for rule in document.limits))
    if isinstance(document, LimitRule):
        return rules[document.id]
    raise TypeError(f"{type(document).__name__} has no shares")
