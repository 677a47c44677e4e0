"""Queries on webhooks and their messages."""

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.storage import NamedRows
from control_plane.usage.models import UsageAlert, UsageWebhookRow

webhooks = NamedRows(UsageWebhookRow, UsageWebhookRow.webhook, sortable={"created_at": UsageWebhookRow.created_at})


async def count(session: AsyncSession) -> int:
    """How many webhooks there are."""
    return await session.scalar(select(func.count()).select_from(UsageWebhookRow)) or 0


async def delete_messages(session: AsyncSession, webhook: str) -> None:
    """Delete a webhook's messages."""
    await session.execute(delete(UsageAlert).where(UsageAlert.webhook == webhook))


def messages_of(webhook: str) -> NamedRows[UsageAlert]:
    """A webhook's messages by id, or by when they were made."""
    return NamedRows(
        UsageAlert, UsageAlert.alert, UsageAlert.webhook == webhook, sortable={"created_at": UsageAlert.created_at}
    )
