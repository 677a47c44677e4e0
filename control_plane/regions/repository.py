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
    """The region whose credential has this hash; after a rotation with an overlap the one before it too."""
    name = await session.scalar(select(RegionRow.region).where(RegionRow.known_by(sha256)))
    return None if name is None else Principal(name, "region", credential=sha256)


async def credentials_in_force(session: AsyncSession) -> set[str]:
    """The hashes of every region's credentials that work at this moment."""
    return await RegionRow.hashes_in_force(session)
