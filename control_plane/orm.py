"""What tables and queries have in common: the base, hashes of secrets, conditions, the version of the schema."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DateTime,
    MetaData,
    SmallInteger,
    Text,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column

from tidegate.contract.credentials import secret_sha256

SHOWN_CHARACTERS = 8
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
_VERSION = text("SELECT version_num, (SELECT works_from FROM schema_support) AS works_from FROM alembic_version")


class Base(DeclarativeBase):
    """The base of tables: ``str`` is text in byte order, ``int`` bigint, times have a zone, mappings are JSON."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(collation="C"),
        int: BigInteger(),
        datetime: DateTime(timezone=True),
        dict[str, str]: JSONB(),
        dict[str, Any]: JSONB(),
        list[str]: JSONB(),
        list[dict[str, Any]]: JSONB(),
    }


def shown_prefix(secret: str) -> str:
    """How a secret begins, which is kept to know it by."""
    return secret[:SHOWN_CHARACTERS]


class KnownBySecret:
    """A row with the hash of its secret; after a rotation the one before works until ``previous_expires_at``."""

    sha256: Mapped[str | None]
    previous_sha256: Mapped[str | None]
    previous_expires_at: Mapped[datetime | None]

    def take_secret(self, secret: str, keep_until: datetime | None) -> None:
        """Be known by ``secret``; by the one before, if there was one, until ``keep_until`` (``None``: no longer)."""
        keeps = keep_until is not None and self.sha256 is not None
        self.previous_sha256 = self.sha256 if keeps else None
        self.previous_expires_at = keep_until if keeps else None
        self.sha256 = secret_sha256(secret)


class SchemaSupport(Base):
    """The one row that says whom the schema serves: versions whose newest migration is ``works_from`` or later.

    Migrations run while replicas of the version before serve. One that takes something away raises ``works_from``.
    """

    __tablename__ = "schema_support"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    works_from: Mapped[str]


async def schema_fault(session: AsyncSession, newest: str) -> str | None:
    """Why a version whose newest migration is ``newest`` cannot work on this database, or ``None``."""
    row = (await session.execute(_VERSION)).one_or_none()
    # migrations are numbered with leading zeros, so their order is that of text
    if row is None or row.version_num < newest:
        return "The database is not migrated to this version."
    if row.works_from > newest:
        return "The database is migrated to a version that this one does not work with."
    return None


def equal(*wanted: tuple[InstrumentedAttribute[Any], object | None]) -> list[ColumnElement[bool]]:
    """Conditions that each column equals its value, for values that are given."""
    return [column == value for column, value in wanted if value is not None]


async def present(session: AsyncSession) -> datetime:
    """The time of this transaction, by the database's clock."""
    return (await session.execute(select(func.now()))).scalar_one()


def has_ended(expires_at: datetime | None, now: datetime) -> bool:
    """Whether something that expires then, or never, has ended at ``now``."""
    return expires_at is not None and expires_at <= now


async def bound_statements(session: AsyncSession, most_s: float) -> None:
    """Bound every statement of this transaction."""
    bound = text("SELECT set_config('statement_timeout', :ms, true)")
    await session.execute(bound, {"ms": str(int(most_s * 1_000))})
