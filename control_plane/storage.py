"""The queries that every named resource needs: find one, page through them."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.orm import Base
from control_plane.web.pages import Page

Row = TypeVar("Row", bound=Base)


class NamedRows(Generic[Row]):
    """The rows of a table (or those ``within`` a condition) that go by the text in ``name``."""

    def __init__(
        self, table: type[Row], name: InstrumentedAttribute[str], within: ColumnElement[bool] | None = None
    ) -> None:
        self._query = select(table).where(true() if within is None else within)
        self._name = name

    async def find(self, session: AsyncSession, name: str) -> Row | None:
        """The row called ``name``."""
        return (await session.scalars(self._query.where(self._name == name))).one_or_none()

    async def page(self, session: AsyncSession, page: Page) -> Sequence[Row]:
        """The rows after the cursor in byte order, one more than asked if there is a next page."""
        query = self._query.order_by(self._name).limit(page.limit + 1)
        if page.after is not None:
            query = query.where(self._name > page.after)
        return (await session.scalars(query)).all()
