"""The base of every table: one metadata, one way to name constraints; and what every query may need."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, ColumnElement, DateTime, MetaData, Text, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


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


def equal(*wanted: tuple[InstrumentedAttribute[Any], object | None]) -> list[ColumnElement[bool]]:
    """Conditions that each column equals its value, for values that are given."""
    return [column == value for column, value in wanted if value is not None]


async def present(session: AsyncSession) -> datetime:
    """The time of this transaction, by the database's clock."""
    return (await session.execute(select(func.now()))).scalar_one()


async def bound_statements(session: AsyncSession, most_s: float) -> None:
    """Bound every statement of this transaction."""
    bound = text("SELECT set_config('statement_timeout', :ms, true)")
    await session.execute(bound, {"ms": str(int(most_s * 1_000))})
