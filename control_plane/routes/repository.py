"""Queries on the route table."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.routes.models import EndpointRow


async def endpoint_by_shape(session: AsyncSession, shape: str) -> str | None:
    """The endpoint that has this shape already."""
    return await session.scalar(select(EndpointRow.endpoint).where(EndpointRow.shape == shape))


async def existing_endpoints(session: AsyncSession, names: Iterable[str]) -> set[str]:
    """Those of ``names`` that are endpoints."""
    return set(await session.scalars(select(EndpointRow.endpoint).where(EndpointRow.endpoint.in_(list(names)))))
