"""What was lately asked of each limit by region: what the rebalancer of quotas goes by."""

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from contract.usage import OUTSIDE_PLANS
from control_plane.limits.models import LimitRow
from control_plane.usage.models import WHOLE, UsageTotal

HOURS_BACK = 1
"""Full hours that are looked at beside the present one: an hour that has just begun says little."""


async def demand(session: AsyncSession) -> dict[int, dict[str, float]]:
    """Units asked for (admitted and denied) in this hour and the last, by rule id and region."""
    since = func.date_trunc("hour", func.now()) - text(f"interval '{HOURS_BACK} hours'")
    query = (
        select(LimitRow.rule_id, UsageTotal.region, func.sum(UsageTotal.cost + UsageTotal.denied_cost))
        .join(
            UsageTotal,
            (UsageTotal.plan == func.coalesce(LimitRow.plan, OUTSIDE_PLANS)) & (UsageTotal.limit_name == LimitRow.name),
        )
        .where(LimitRow.auto_shares, UsageTotal.hour >= since, UsageTotal.limit_name != WHOLE)
        .group_by(LimitRow.rule_id, UsageTotal.region)
    )
    found: dict[int, dict[str, float]] = {}
    for rule_id, region, units in await session.execute(query):
        found.setdefault(rule_id, {})[region] = float(units)
    return found
