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
from control_plane.limits.service import rules_in, to_rule
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
    one_step,
    parts_of,
    published,
    rescheduled,
    situation,
    target_of,
)
from control_plane.regions import repository as regions
from tidegate.contract.config import Plan
from tidegate.contract.limits import LimitRule


class _Shares(NamedTuple):
    """Shares that a write may move: of which limit (``plan`` null: outside plans), whose, and where they stand.

    ``move`` is the row that says where; there is none for shares that never moved.
    """

    rule: LimitRule
    plan: str | None
    whose: str
    move: QuotaMove | None
    schedule: Schedule


async def schedule_shares(write: ConfigWrite, now_us: int) -> None:
    """Put in place of each plan and limit of a write the first part of the way there, from what nodes have."""
    scheduling = _Scheduling(write, now_us, await nodes.regions_with_nodes(write.session))
    wanted = [change for change in await write.documents() if change.key.kind in {"plan", "limit"}]
    for change in wanted:
        await scheduling.keep_gone(change)
    for change in wanted:
        if change.after is not None:
            write.publish(await scheduling.scheduled(change.key, change.before, change.after), change.key)
    if write.staged:
        await scheduling.wait_for_held_back(await write.placement.handed_on())


class _Scheduling:
    """One write's limits and their schedules of shares. ``spenders``: regions that ever had a node."""

    def __init__(self, write: ConfigWrite, now_us: int, spenders: Collection[str]) -> None:
        self._write = write
        self._session = write.session
        self._now_us = now_us
        self._spenders = spenders

    async def keep_gone(self, change: ChangedDocument) -> None:
        """Keep the shares of limits that go: a rollback brings those back under the ids that they had."""
        has = rules_in(change.key, change.after)
        had = rules_in(change.key, change.before)
        gone = [rule for id, rule in had.items() if id not in has and rule.mode in SPLIT_MODES]
        moves = await repository.moves(self._session, [rule.id for rule in gone]) if gone else {}
        for rule in gone:
            own, of_clients = _shares(change.key, rule, rule, moves)
            for shares in (own, of_clients) if rule.parts else (own,):
                self._store(shares, shares.schedule).waiting = False

    async def scheduled(self, key: DocumentKey, before: str | None, after: str) -> Plan | LimitRule:
        """The document to publish in place of ``after``, where nodes have ``before``."""
        rules, had = rules_in(key, after), rules_in(key, before)
        moves = await repository.moves(self._session, rules)
        scheduled = [self._rule(key, had.get(rule.id), rule, moves) for rule in rules.values()]
        afresh = {id for id, _ in moves if rules[id].mode not in SPLIT_MODES}
        if afresh:
            await repository.forget_moves(self._session, afresh)
        if key.kind == "limit":
            return scheduled[0]
        return msgspec.structs.replace(msgspec.json.decode(after, type=Plan), limits=tuple(scheduled))

    async def wait_for_held_back(self, keys: Collection[DocumentKey]) -> None:
        """Cuts among documents that a roll-out held back: they wait for the nodes that get them now."""
        plans = {key.id for key in keys if key.kind == "plan"}
        limits = {key.id for key in keys if key.kind == "limit"}
        for move in await repository.waiting(self._session):
            held = move.plan in plans or (move.plan is None and move.limit_name in limits)
            if held:
                # not `cut_at`: nodes of the stage will not speak of it once more, so it need not be waited for
                move.cut_revision, move.raise_at_us = self._write.next_revision, None

    def _rule(
        self, key: DocumentKey, had: LimitRule | None, rule: LimitRule, moves: Mapping[ShareOwner, QuotaMove]
    ) -> LimitRule:
        if rule.mode not in SPLIT_MODES:
            return rule
        if key.kind == "limit" and not has_windows(rule):
            rule = msgspec.structs.replace(rule, parts=())  # clients have no figures of their own outside plans
        split = had if had is not None and had.mode in SPLIT_MODES else rule
        own, of_clients = _shares(key, rule, split, moves)
        units, parts = rescheduled(rule, own.schedule, of_clients.schedule, self._now_us, self._spenders)
        self._keep(own, units)
        self._keep(of_clients, parts)
        return published(rule, units, parts, self._now_us if had is None else had.since_us)

    def _keep(self, shares: _Shares, schedule: Schedule) -> None:
        """Store a schedule unless it stands already; that of shares that never moved needs no row."""
        if shares.move is None:
            if schedule.waiting or len(schedule.steps) > 1:
                self._store(shares, schedule)
        elif schedule != shares.schedule or schedule.waiting != shares.move.waiting:
            self._store(shares, schedule)

    def _store(self, shares: _Shares, schedule: Schedule) -> QuotaMove:
        move = shares.move
        if move is None:
            move = QuotaMove(rule_id=shares.rule.id, whose=shares.whose)
            self._session.add(move)
        move.plan, move.limit_name = shares.plan, shares.rule.name
        move.cut_revision, move.cut_at = self._write.next_revision, func.now()
        move.author, move.reason = self._write.author, self._write.reason
        move.freed, move.raise_at_us = [], None
        keep_schedule(move, schedule)
        return move


def _shares(
    key: DocumentKey, rule: LimitRule, had: LimitRule, moves: Mapping[ShareOwner, QuotaMove]
) -> tuple[_Shares, _Shares]:
    """A limit's own shares and its clients': where the move before left them, else as nodes have them by ``had``."""
    plan = key.id if key.kind == "plan" else None
    never_moved = {THE_LIMIT: target_of(had), CLIENTS: parts_of(had if had.parts else rule)}

    def of(whose: str) -> _Shares:
        move = moves.get(ShareOwner(rule.id, whose))
        return _Shares(rule, plan, whose, move, one_step(never_moved[whose]) if move is None else schedule_of(move))

    return of(THE_LIMIT), of(CLIENTS)


def schedule_of(move: QuotaMove) -> Schedule:
    """A move's schedule."""
    return msgspec.convert(move.schedule, Schedule)


class AckStatus(NamedTuple):
    """A move's rule, its schedule, and the nodes whose ACK of the cut is missing."""

    rule: LimitRule
    schedule: Schedule
    situation: Situation


async def ack_status(session: AsyncSession, move: QuotaMove, heartbeat_s: float) -> AckStatus | None:
    """Where a move stands; ``None`` if the limit is gone."""
    row = await repository.limit_of(session, move.rule_id)
    if row is None:
        return None
    names = await regions.names(session)
    rule, schedule = to_rule(row, names), schedule_of(move)
    connected = await nodes.connected(session, heartbeat_s)
    effects = await nodes.effects(session, move.rule_id, move.cut_revision)
    seen = situation(rule, schedule, move.cut_revision, move.freed, names, connected, effects)
    return AckStatus(rule, schedule, seen)


def keep_schedule(move: QuotaMove, schedule: Schedule) -> None:
    """Write the schedule into its row."""
    move.schedule, move.waiting = msgspec.to_builtins(schedule), schedule.waiting
