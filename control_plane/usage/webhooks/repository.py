"""Queries on webhooks and their messages."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.resources import NamedRows
from control_plane.usage.models import UsageAlert, UsageWebhookRow

webhooks = NamedRows(UsageWebhookRow, UsageWebhookRow.webhook, sortable={"created_at": UsageWebhookRow.created_at})


async def delete_messages(session: AsyncSession, webhook: str) -> None:
    """Delete a webhook's messages."""
    await session.execute(delete(UsageAlert).where(UsageAlert.webhook == webhook))


def messages_of(webhook: str) -> NamedRows[UsageAlert]:
    """A webhook's messages by id, or by when they were made."""
    return NamedRows(
        UsageAlert, UsageAlert.alert, UsageAlert.webhook == webhook, sortable={"created_at": UsageAlert.created_at}
    )


async def enabled(session: AsyncSession) -> Sequence[UsageWebhookRow]:
    """Webhooks that get alerts."""
    return (await session.scalars(select(UsageWebhookRow).where(UsageWebhookRow.enabled))).all()


async def lock_existing(session: AsyncSession, names: Collection[str], made_at: Mapping[str, datetime]) -> set[str]:
    """Those of the webhooks that still exist, made at ``made_at``; none is deleted before this transaction ends."""
    query = select(UsageWebhookRow.webhook, UsageWebhookRow.created_at).where(UsageWebhookRow.webhook.in_(list(names)))
    rows = await session.execute(query.order_by(UsageWebhookRow.webhook).with_for_update(key_share=True, read=True))
    return {webhook for webhook, created_at in rows if created_at == made_at[webhook]}


async def add_messages(session: AsyncSession, messages: Sequence[dict[str, object]]) -> int:
    """Store alerts. Returns how many are new."""
    statement = insert(UsageAlert).on_conflict_do_nothing().returning(UsageAlert.alert)
    return len((await session.scalars(statement.values(messages))).all())


async def with_due_messages(session: AsyncSession, without: Iterable[str]) -> Sequence[str]:
    """Webhooks with messages that are due, but for those ``without``."""
    waiting = select(UsageAlert).where(UsageAlert.webhook == UsageWebhookRow.webhook, UsageAlert.due_at <= func.now())
    query = select(UsageWebhookRow.webhook).where(
        UsageWebhookRow.enabled, UsageWebhookRow.webhook.not_in(list(without)), waiting.exists()
    )
    return (await session.scalars(query)).all()


async def lock_due(session: AsyncSession, webhook: str, count: int) -> Sequence[Row[UsageAlert, UsageWebhookRow]]:
    """The first ``count`` messages of a webhook that are due and nobody else holds, with it."""
    query = (
        select(UsageAlert, UsageWebhookRow)
        .join(UsageWebhookRow, UsageWebhookRow.webhook == UsageAlert.webhook)
        .where(UsageAlert.webhook == webhook, UsageAlert.due_at <= func.now(), UsageWebhookRow.enabled)
        .order_by(UsageAlert.due_at)
        .limit(count)
        .with_for_update(of=UsageAlert, skip_locked=True)
    )
    return (await session.execute(query)).all()


async def note(session: AsyncSession, alert: str, values: Mapping[str, Any]) -> None:
    """Record the result of a message."""
    await session.execute(update(UsageAlert).where(UsageAlert.alert == alert).values(**values))
