"""Which migration the database is at, and whether this version of the control plane works on it.

Migrations run while replicas of the version before serve, and stay when that version comes back. So a database that is
ahead is fine as long as it says so: a migration that takes something away raises ``works_from``.
"""

from sqlalchemy import CheckConstraint, SmallInteger, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base

_AT = text("SELECT version_num, (SELECT works_from FROM schema_support) AS works_from FROM alembic_version")


class SchemaSupport(Base):
    """The one row that says whom the schema serves: versions whose newest migration is ``works_from`` or later."""

    __tablename__ = "schema_support"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    works_from: Mapped[str]


async def schema_fault(session: AsyncSession, newest: str) -> str | None:
    """Why a version whose newest migration is ``newest`` cannot work on this database, or ``None``."""
    row = (await session.execute(_AT)).one_or_none()
    # migrations are numbered with leading zeros, so their order is that of text
    if row is None or row.version_num < newest:
        return "The database is not migrated to this version."
    if row.works_from > newest:
        return "The database is migrated to a version that this one does not work with."
    return None
