"""Queries on blocks."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.blocks.models import BlockRow
from control_plane.resources import NamedRows

blocks = NamedRows(
    BlockRow, BlockRow.block, sortable={"created_at": BlockRow.created_at, "expires_at": BlockRow.expires_at}
)


async def of_client(session: AsyncSession, client: str, now: datetime) -> Sequence[str]:
    """The blocks of a client that are in force at ``now``, by name."""
    lasting = or_(BlockRow.expires_at.is_(None), BlockRow.expires_at > now)
    query = select(BlockRow.block).where(BlockRow.client == client, lasting)
    return (await session.scalars(query.order_by(BlockRow.block))).all()
