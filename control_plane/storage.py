"""Queries that every named resource needs: find one, list pages."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, func, select, text, true, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.orm import Base
from control_plane.web.pages import Page, foreign_cursor, is_text

Row = TypeVar("Row", bound=Base)
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_NOTHING: dict[type, Any] = {str: "", int: 0, float: 0.0, bool: False, datetime: _BEGINNING}
"""The sort key of null."""


def equal(*wanted: tuple[InstrumentedAttribute[Any], object | None]) -> list[ColumnElement[bool]]:
    """Conditions that each column equals its value, for values that are given."""
    return [column == value for column, value in wanted if value is not None]


class NamedRows(Generic[Row]):
    """The rows of a table (or those ``within`` a condition) that go by the text in ``name``.

    ``sortable``: by which other columns a list can be sorted, by their names in the API.
    """

    def __init__(
        self,
        table: type[Row],
        name: InstrumentedAttribute[str],
        within: ColumnElement[bool] | None = None,
        sortable: Mapping[str, InstrumentedAttribute[Any]] | None = None,
    ) -> None:
        self._query = select(table).where(true() if within is None else within)
        self._name = name
        self._sortable = sortable or {}

    async def find(self, session: AsyncSession, name: str) -> Row | None:
        """The row of that name."""
        return (await session.scalars(self._query.where(self._name == name))).one_or_none()

    async def find_all(self, session: AsyncSession, names: Iterable[str]) -> dict[str, Row]:
        """The existing rows of ``names``, by name."""
        rows = await session.scalars(self._query.where(self._name == func.any(list(names))))
        return {getattr(row, self._name.key): row for row in rows}

    async def all(self, session: AsyncSession) -> Sequence[Row]:
        """Every row, by name."""
        return (await session.scalars(self._query.order_by(self._name))).all()

    async def page(
        self, session: AsyncSession, page: Page, *, prefix: str | None = None, where: Sequence[ColumnElement[bool]] = ()
    ) -> Sequence[Row]:
        """The rows after the cursor, one more than asked if there is a next page.

        ``prefix``: how the name begins. ``where``: what else must hold. Null sorts before everything.
        """
        query = self._query.where(*where)
        if prefix is not None:
            query = query.where(self._name.startswith(prefix, autoescape=True))
        key = tuple_(*self._order(page))
        if page.after is not None:
            after = self._parsed(page)
            query = query.where(key < after if page.descending else key > after)
        ordered = [column.desc() if page.descending else column for column in self._order(page)]
        return (await session.scalars(query.order_by(*ordered).limit(page.limit + 1))).all()

    def key(self, row: Row, page: Page) -> str:
        """A cursor of the last row of a page."""
        name: str = getattr(row, self._name.key)
        if page.sort is None:
            return name
        value = getattr(row, self._sortable[page.sort].key)
        if value is None:
            value = _NOTHING[self._kind(page.sort)]
        return json.dumps([page.sort, value.isoformat() if isinstance(value, datetime) else value, name])

    def _order(self, page: Page) -> list[ColumnElement[Any]]:
        name: ColumnElement[Any] = self._name.expression
        if page.sort is None:
            return [name]
        return [func.coalesce(self._sortable[page.sort], _NOTHING[self._kind(page.sort)]), name]

    def _kind(self, sort: str) -> type:
        kind: type = self._sortable[sort].type.python_type
        return kind

    def _parsed(self, page: Page) -> Any:
        after = page.after or ""
        if page.sort is None:
            return tuple_(after)
        kind = self._kind(page.sort)
        try:
            field, value, name = json.loads(after)
            value = datetime.fromisoformat(value).astimezone(UTC) if kind is datetime else value
        except (ValueError, TypeError, OverflowError):
            raise foreign_cursor() from None
        if field != page.sort or not is_text(name) or type(value) is not kind or (kind is str and not is_text(value)):
            raise foreign_cursor()
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise foreign_cursor()
        return tuple_(value, name)


async def present(session: AsyncSession) -> datetime:
    """The time of this transaction, by the database's clock."""
    return (await session.execute(select(func.now()))).scalar_one()


async def bound_statements(session: AsyncSession, most_s: float) -> None:
    """Bound every statement of this transaction."""
    bound = text("SELECT set_config('statement_timeout', :ms, true)")
    await session.execute(bound, {"ms": str(int(most_s * 1_000))})
