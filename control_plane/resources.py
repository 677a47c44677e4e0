"""What every named resource has: create, upsert, read, list and delete, and the queries that find its rows."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, func, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.errors import ConflictError, FieldError, InvalidError, NotFoundError
from control_plane.orm import Base, has_ended, present
from control_plane.publishing.writer import ConfigWrite
from control_plane.web.etags import Preconditions
from control_plane.web.fields import Body, View
from control_plane.web.pages import Listing, Page, foreign_cursor, is_text, listing

Row = TypeVar("Row", bound=Base)
Input = TypeVar("Input", bound=Body)
Shown = TypeVar("Shown", bound=View)
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_NOTHING: dict[type, Any] = {str: "", int: 0, float: 0.0, bool: False, datetime: _BEGINNING}
"""The sort key of null."""


class Resource(ABC, Generic[Row, Input, Shown]):
    """A named resource. Subclasses save, remove and show its rows.

    ``create``, ``replace`` and ``delete`` raise :class:`ConflictError`, :class:`NotFoundError`, or
    :class:`PreconditionFailedError`; ``save`` raises :class:`InvalidError` for what it cannot accept.
    """

    noun: str
    rows: "NamedRows[Row]"

    @abstractmethod
    def view(self, row: Row) -> Shown:
        """The view of a row."""

    @abstractmethod
    async def save(self, write: ConfigWrite, name: str, body: Input, current: Row | None) -> Row:
        """Make or change the row and publish what follows from it."""

    @abstractmethod
    async def remove(self, write: ConfigWrite, row: Row) -> None:
        """Delete the row and withdraw what followed from it."""

    async def row(self, session: AsyncSession, name: str) -> Row:
        """The row of that name."""
        found = await self.rows.find(session, name)
        if found is None:
            raise self.missing(name)
        return found

    def audited(self, row: Row) -> BaseModel:
        """A row in the audit log: all that is needed to write it again."""
        return self.view(row)

    def ended(self, row: Row, now: datetime) -> bool:
        """Whether a row has expired; most never do."""
        return has_ended(getattr(row, "expires_at", None), now)

    def record(self, write: ConfigWrite, name: str, before: BaseModel | None, row: Row | None) -> None:
        """Record a change in the audit log. A part of another resource records that resource."""
        write.record(self.noun, name, before, None if row is None else self.audited(row))

    def missing(self, name: str) -> NotFoundError:
        """The error for an unknown name."""
        return NotFoundError(f"There is no {self.noun} named {name}.")

    async def get(self, session: AsyncSession, name: str) -> Shown:
        """One resource."""
        return self.view(await self.row(session, name))

    async def list_page(
        self,
        session: AsyncSession,
        page: Page,
        *,
        prefix: str | None = None,
        where: Sequence[ColumnElement[bool]] = (),
    ) -> Listing[Shown]:
        """One page of resources whose name begins with ``prefix`` and that meet all of ``where``."""
        return await self.rows.listing(session, page, self.view, prefix=prefix, where=where)

    async def create(self, write: ConfigWrite, name: str, body: Input) -> Shown:
        """Create a resource whose name is free."""
        if await self._unless_ended(write, name) is not None:
            raise ConflictError(f"There is a {self.noun} named {name} already.")
        row = await self.save(write, name, body, None)
        self.record(write, name, None, row)
        return self.view(row)

    async def replace(
        self, write: ConfigWrite, name: str, body: Input, preconditions: Preconditions
    ) -> tuple[Shown, bool]:
        """Create or replace a resource. Returns whether it was created."""
        if preconditions.creates:
            current = await self._unless_ended(write, name)
        else:
            current = await self.rows.find(write.session, name)
        preconditions.check(None if current is None else self.view(current))
        before = None if current is None else self.audited(current)
        row = await self.save(write, name, body, current)
        self.record(write, name, before, row)
        return self.view(row), current is None

    async def _unless_ended(self, write: ConfigWrite, name: str) -> Row | None:
        """The row of that name. One that has ended is deleted, which its job may not have done yet."""
        row = await self.rows.find(write.session, name)
        if row is None or not self.ended(row, await present(write.session)):
            return row
        await self.take_away(write, name, row)
        await write.session.flush()
        return None

    async def delete(self, write: ConfigWrite, name: str, preconditions: Preconditions) -> None:
        """Delete a resource."""
        row = await self.row(write.session, name)
        preconditions.check(self.view(row))
        await self.take_away(write, name, row)
        await write.session.flush()

    async def take_away(self, write: ConfigWrite, name: str, row: Row) -> None:
        """Delete a row that was read, and record it."""
        before = self.audited(row)
        await self.remove(write, row)
        self.record(write, name, before, None)


def same_name(path: str, body: str | None, field: str) -> None:
    """Require that a name in the body equals the name in the path."""
    if body is not None and body != path:
        raise InvalidError([FieldError(field, f"contradicts the path, which says {path}")])


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

    async def find_all(self, session: AsyncSession, names: Iterable[str] | None = None) -> dict[str, Row]:
        """The existing rows of ``names`` (``None``: every row), by name and in the order of names."""
        query = self._query if names is None else self._query.where(self._name == func.any(list(names)))
        return {self._name_of(row): row for row in await session.scalars(query.order_by(self._name))}

    async def existing(self, session: AsyncSession, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that have a row."""
        query = self._query.with_only_columns(self._name).where(self._name == func.any(list(names)))
        return set(await session.scalars(query))

    async def count(self, session: AsyncSession) -> int:
        """How many rows there are."""
        return await session.scalar(self._query.with_only_columns(func.count(self._name))) or 0

    async def listing(
        self,
        session: AsyncSession,
        page: Page,
        show: Callable[[Row], Shown],
        *,
        prefix: str | None = None,
        where: Sequence[ColumnElement[bool]] = (),
    ) -> Listing[Shown]:
        """The rows after the cursor as a page.

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
        rows = (await session.scalars(query.order_by(*ordered).limit(page.limit + 1))).all()
        return listing(rows, page, lambda row: self._key(row, page), show)

    def _key(self, row: Row, page: Page) -> str:
        """A cursor of the last row of a page."""
        name = self._name_of(row)
        if page.sort is None:
            return name
        value = getattr(row, self._sortable[page.sort].key)
        if value is None:
            value = _NOTHING[self._kind(page.sort)]
        return json.dumps([page.sort, value.isoformat() if isinstance(value, datetime) else value, name])

    def _name_of(self, row: Row) -> str:
        name: str = getattr(row, self._name.key)
        return name

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
