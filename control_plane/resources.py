"""The common service of configurable resources: create, upsert, read, list and delete."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ConflictError, FieldError, InvalidError, NotFoundError
from control_plane.orm import Base
from control_plane.publishing.writer import ConfigWrite
from control_plane.storage import NamedRows
from control_plane.web.etags import Preconditions
from control_plane.web.fields import Body, View
from control_plane.web.pages import Listing, Page, listing

Row = TypeVar("Row", bound=Base)
Input = TypeVar("Input", bound=Body)
Shown = TypeVar("Shown", bound=View)


class Resource(ABC, Generic[Row, Input, Shown]):
    """A named resource. Subclasses save, remove and show its rows.

    ``create``, ``replace`` and ``delete`` raise :class:`ConflictError`, :class:`NotFoundError`, or
    :class:`PreconditionFailedError`; ``save`` raises :class:`InvalidError` for what it cannot accept.
    """

    noun: str
    rows: NamedRows[Row]

    @abstractmethod
    def name_of(self, row: Row) -> str:
        """The name of a row, by which lists are ordered."""

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
        rows = await self.rows.page(session, page, prefix=prefix, where=where)
        return listing(rows, page, lambda row: self.rows.key(row, page), self.view)

    async def create(self, write: ConfigWrite, name: str, body: Input) -> Shown:
        """Create a resource whose name is free."""
        if await self.rows.find(write.session, name) is not None:
            raise ConflictError(f"There is a {self.noun} named {name} already.")
        row = await self.save(write, name, body, None)
        self.record(write, name, None, row)
        return self.view(row)

    async def replace(
        self, write: ConfigWrite, name: str, body: Input, preconditions: Preconditions
    ) -> tuple[Shown, bool]:
        """Create or replace a resource. Returns whether it was created."""
        current = await self.rows.find(write.session, name)
        preconditions.check(None if current is None else self.view(current))
        before = None if current is None else self.audited(current)
        row = await self.save(write, name, body, current)
        self.record(write, name, before, row)
        return self.view(row), current is None

    async def delete(self, write: ConfigWrite, name: str, preconditions: Preconditions) -> None:
        """Delete a resource."""
        row = await self.row(write.session, name)
        preconditions.check(self.view(row))
        before = self.audited(row)
        await self.remove(write, row)
        self.record(write, name, before, None)
        await write.session.flush()


def same_name(path: str, body: str | None, field: str) -> None:
    """Require that a name in the body equals the name in the path."""
    if body is not None and body != path:
        raise InvalidError([FieldError(field, f"contradicts the path, which says {path}")])
