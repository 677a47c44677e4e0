"""Queries on regions."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import Principal
from control_plane.regions.models import RegionRow


async def names(session: AsyncSession) -> Sequence[str]:
    """Every region, in byte order."""
    return (await session.scalars(select(RegionRow.region).order_by(RegionRow.region))).all()


async def principal_by_credential(session: AsyncSession, sha256: str) -> Principal | None:
    """The region whose credential has this hash."""
    name = await session.scalar(select(RegionRow.region).where(RegionRow.credential_sha256 == sha256))
    return None if name is None else Principal(name, "region")
