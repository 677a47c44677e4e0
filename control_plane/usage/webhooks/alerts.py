"""Finds alerts to send: one a webhook for each client, limit, window and threshold."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database, chunks
from control_plane.limits.service import Plans
from control_plane.usage import near_limit_repository, windows
from control_plane.usage.models import UsageWebhookRow
from control_plane.usage.near_limit_repository import Near
from control_plane.usage.webhooks import repository
from tidegate.contract.limits import LimitRule

ALERTS_A_STATEMENT = 500
MAX_CLIENTS = 100_000
"""Of a plan, in one look: those over a limit come first, and must not hide those that come near."""
LATE = timedelta(minutes=15)
"""Windows that ended so long ago are looked at as well: what they counted last comes after their end."""


async def find_alerts(database: Database, now: datetime) -> int:
    """Store new alerts, each once. Returns how many are new."""
    async with database.read() as session:
        webhooks = await repository.enabled(session)
        found = await _found(session, webhooks, now) if webhooks else []
    made_at = {webhook.webhook: webhook.created_at for webhook in webhooks}
    new = 0
    for part in chunks(found, ALERTS_A_STATEMENT):
        async with database.transaction() as session:
            # a webhook may have been deleted meanwhile, and another one made of the same name
            left = await repository.lock_existing(session, {str(message["webhook"]) for message in part}, made_at)
            messages = [message for message in part if message["webhook"] in left]
            new += await repository.add_messages(session, messages) if messages else 0
    return new


async def _found(session: AsyncSession, webhooks: Sequence[UsageWebhookRow], now: datetime) -> list[dict[str, object]]:
    lowest = min(threshold for webhook in webhooks for threshold in webhook.thresholds)
    named = {webhook.plan for webhook in webhooks if webhook.plan is not None}
    wanted = None if any(webhook.plan is None for webhook in webhooks) else named
    alerts: list[dict[str, object]] = []
    for plan in (await Plans.rows.find_all(session, wanted)).values():
        rules, _ = windows.fit_limits(plan)
        by_name = {rule.name: rule for rule in rules}
        ended = [rule for rule in rules if windows.is_over(rule, now - LATE, now)]
        for at, of in ((now, rules), (now - LATE, ended)):
            for one in await near_limit_repository.near(session, plan.plan, of, lowest, at, MAX_CLIENTS):
                alerts += [
                    alert
                    for webhook in webhooks
                    if webhook.plan in {None, one.plan} and webhook.client in {None, one.client}
                    for alert in _alerts(webhook, one, by_name, at)
                ]
    return alerts


def _alerts(
    webhook: UsageWebhookRow, near: Near, rules: Mapping[str, LimitRule], at: datetime
) -> list[dict[str, object]]:
    return [
        {
            "alert": f"evt_{secrets.token_hex(12)}",
            "webhook": webhook.webhook,
            "client": near.client,
            "plan": near.plan,
            "limit_name": near.limit,
            "window_start": windows.period_start(rules[near.limit], at.astimezone(UTC)),
            "percent": round(threshold * 100),
            "used": near.used,
            "limit": near.of,
            "attempts": 0,
            "due_at": func.now(),
        }
        for threshold in webhook.thresholds
        if near.share >= threshold
    ]
