"""What a move of shares waits for: every node's word that it goes by the cut."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from contract.limits import LimitRule
from control_plane.limits.rules import to_rule
from control_plane.quotas import repository
from control_plane.quotas.guard import schedule_of
from control_plane.quotas.models import QuotaMove
from control_plane.quotas.moving import Schedule, losers
from control_plane.regions import repository as regions
from control_plane.rollout import nodes
from control_plane.rollout.nodes import ConnectedNode

MAX_NAMED = 20


class Situation(NamedTuple):
    """What a move waits for, in words; nothing where it can go on. ``effective_us`` is the latest that a node said."""

    waiting_for: list[str]
    effective_us: int | None
    silent: list[str]
    """Regions whose nodes applied the cut, but none said from when on it holds."""


def situation(
    rule: LimitRule,
    move: QuotaMove,
    schedule: Schedule,
    region_names: Sequence[str],
    connected: Sequence[ConnectedNode],
    effects: Mapping[str, int],
) -> Situation:
    """Whether every cut is acknowledged: by all connected nodes, and at least one of each region that loses.

    ``effects`` are the latest instants that nodes of a region said for this cut. A region without a connected node
    cannot acknowledge; where it loses, it holds up the raise until an operator frees its share.
    """
    asked = [node for node in connected if node.region not in move.freed]
    waiting_for = [
        f"{node.region}/{node.node} has revision {node.applied_revision}, not {move.cut_revision}"
        for node in asked
        if node.applied_revision < move.cut_revision
    ]
    alive = {node.region for node in asked}
    losing = sorted(losers(schedule) & set(region_names) - set(move.freed))
    waiting_for += [f"no node of {region} is connected" for region in losing if region not in alive]
    silent = []
    if rule.mode == "strict" and not waiting_for:
        silent = [region for region in losing if region not in effects]
        waiting_for += [f"no node of {region} said from when on its cut holds" for region in silent]
    if len(waiting_for) > MAX_NAMED:
        waiting_for[MAX_NAMED:] = [f"{len(waiting_for) - MAX_NAMED} more"]
    return Situation(waiting_for, max(effects.values(), default=None), silent)


async def look(
    session: AsyncSession, move: QuotaMove, heartbeat_s: float
) -> tuple[LimitRule, Schedule, Situation] | None:
    """The rule that a move is of, where its shares stand, and what it waits for; nothing if the limit is gone."""
    row = await repository.limit_of(session, move.rule_id)
    if row is None:
        return None
    names = await regions.names(session)
    rule, schedule = to_rule(row, names), schedule_of(move)
    connected = await nodes.connected(session, heartbeat_s)
    effects = await nodes.effects(session, move.rule_id, move.cut_revision)
    return rule, schedule, situation(rule, move, schedule, names, connected, effects)
