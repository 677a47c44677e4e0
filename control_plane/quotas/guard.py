"""Stands between every write and the nodes: a share that would move at once moves by cut and raise instead.

Whatever changes a plan or a limit (an admin, a file, a rollback, a region that comes) publishes the shares that it
wants. Here they are held against what nodes have, and what is published is the first part of the way there.
"""

from collections.abc import Callable, Collection, Mapping

import msgspec
from sqlalchemy import func

from contract.config import DOCUMENT_TYPES, Plan
from contract.limits import BUCKET_ALGORITHMS, LimitRule, ShareStep
from control_plane.limits.rules import SPLIT_MODES
from control_plane.quotas import repository
from control_plane.quotas.models import QuotaMove
from control_plane.quotas.moving import (
    Schedule,
    limit_units,
    retargeted,
    same_shares,
    settled,
    target_of,
)
from control_plane.rollout import nodes
from control_plane.rollout.documents import DocumentKey, canonical
from control_plane.rollout.writer import ConfigWrite


class QuotaGuard:
    """What a ``ConfigWriter`` asks about every plan and limit before it becomes part of a revision."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us

    async def shaped(self, write: ConfigWrite, key: DocumentKey, before: str | None, after: str) -> str:
        """The document to publish in place of ``after``, where nodes have ``before``."""
        wanted = msgspec.json.decode(after, type=DOCUMENT_TYPES[key.kind])
        had = {} if before is None else _rules(msgspec.json.decode(before, type=DOCUMENT_TYPES[key.kind]))
        rules = _rules(wanted)
        moves = await repository.moves(write.session, rules)
        shaped = {}
        afresh = [id for id in moves if id not in rules or rules[id].mode not in SPLIT_MODES]
        for id, rule in rules.items():
            shaped[id] = await self._moved(write, key, had.get(id), rule, moves.get(id))
        if afresh:
            await repository.forget_moves(write.session, afresh)
        return canonical(_with_rules(wanted, shaped))

    async def restamped(self, write: ConfigWrite, keys: Collection[DocumentKey]) -> None:
        """Cuts among documents that a roll-out held back: they wait for the nodes that get them now."""
        plans = {key.id for key in keys if key.kind == "plan"}
        limits = {key.id for key in keys if key.kind == "limit"}
        for move in await repository.waiting(write.session):
            if move.plan in plans or (move.plan is None and move.limit_name in limits):
                move.cut_revision, move.cut_at = write.next_revision, func.now()

    async def _moved(
        self, write: ConfigWrite, key: DocumentKey, had: LimitRule | None, rule: LimitRule, move: QuotaMove | None
    ) -> LimitRule:
        if rule.mode not in SPLIT_MODES:
            return rule
        since_us = had.since_us if had is not None else self._now_us()
        if had is None or had.mode not in SPLIT_MODES:
            return _published(rule, settled(target_of(rule)), since_us)
        schedule = settled(target_of(had)) if move is None else schedule_of(move)
        target = target_of(rule)
        if not same_shares(schedule.target, target):
            spenders = await nodes.regions_with_nodes(write.session)
            schedule = retargeted(rule, schedule, target, self._now_us(), spenders)
            self._keep(write, key, rule, move, schedule)
        return _published(rule, schedule, since_us)

    def _keep(
        self, write: ConfigWrite, key: DocumentKey, rule: LimitRule, move: QuotaMove | None, schedule: Schedule
    ) -> None:
        if move is None:
            if not schedule.waiting:
                return
            move = QuotaMove(rule_id=rule.id)
            write.session.add(move)
        move.plan = key.id if key.kind == "plan" else None
        move.limit_name = rule.name
        move.cut_revision, move.cut_at = write.next_revision, func.now()
        move.author, move.reason = write.author, write.reason
        move.freed, move.raise_at_us = [], None
        keep_schedule(move, schedule)


def schedule_of(move: QuotaMove) -> Schedule:
    """A move's schedule."""
    return msgspec.convert(move.schedule, Schedule)


def keep_schedule(move: QuotaMove, schedule: Schedule) -> None:
    """Write the schedule into its row."""
    move.schedule, move.waiting = msgspec.to_builtins(schedule), schedule.waiting


def _published(rule: LimitRule, schedule: Schedule, since_us: int) -> LimitRule:
    shares = limit_units(rule, schedule.steps[-1])
    if rule.mode != "strict":
        return msgspec.structs.replace(rule, shares=shares, steps=())
    # what nodes read out of `shares` alone is not repeated as a step
    plain = len(schedule.steps) == 1 and rule.algorithm not in BUCKET_ALGORITHMS
    steps: tuple[ShareStep, ...] = () if plain else schedule.steps
    return msgspec.structs.replace(rule, shares=shares, steps=steps, since_us=since_us)


def _rules(document: msgspec.Struct) -> dict[int, LimitRule]:
    limits = document.limits if isinstance(document, Plan) else (document,)
    return {rule.id: rule for rule in limits if isinstance(rule, LimitRule)}


def _with_rules(document: msgspec.Struct, rules: Mapping[int, LimitRule]) -> Plan | LimitRule:
    if isinstance(document, Plan):
        return msgspec.structs.replace(document, limits=tuple(rules[rule.id] for rule in document.limits))
    if isinstance(document, LimitRule):
        return rules[document.id]
    raise TypeError(f"{type(document).__name__} has no shares")
