"""What a move of shares waits for: every node's word that it goes by the cut."""

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.limits.rules import to_rule
from control_plane.nodes import repository as nodes
from control_plane.quotas import repository
from control_plane.quotas.models import QuotaMove
from control_plane.quotas.scheduling import schedule_of
from control_plane.quotas.share_schedule import Schedule, Situation, situation
from control_plane.regions import repository as regions
from tidegate.contract.limits import LimitRule


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
    return rule, schedule, situation(rule, schedule, move.cut_revision, move.freed, names, connected, effects)
