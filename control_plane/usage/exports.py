"""Usage as CSV: a page, or a stream of all lines, as a month of every client's hours takes gigabytes."""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi.responses import StreamingResponse
from sqlalchemy import RowMapping
from starlette.types import Receive, Scope, Send

from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.usage import repository as reading
from control_plane.usage.repository import FIGURES, UsageQuery, member_of

AT_ONCE = 2
"""Maximum number of exports at a time; each holds a connection of the pool until it ends."""
LONGEST_S = 600.0
"""A slower reader finds the connection closed amid the body."""
MEDIA_TYPE = "text/csv; charset=utf-8"
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a formula begins (OWASP, CSV injection), full-width signs too. What labels hold is the regions' to say."""


class Exports:
    """Exports under way on this replica."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._free = AT_ONCE

    async def whole(self, query: UsageQuery) -> StreamingResponse:
        """All lines of ``query``, from one instant. Raises ``UnavailableError``, ``InvalidError``."""
        lines = self._lines(query)
        first = await anext(lines)  # an error must come before the status is sent
        return _Export(first, lines)

    async def _lines(self, query: UsageQuery) -> AsyncGenerator[str, None]:
        async with self._slot(), self._database.read() as session:
            text = _header(query)
            async for rows in reading.all_lines(session, query):
                yield text + _text(rows, query)
                text = ""
            if text:
                yield text

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None, None]:
        if not self._free:
            raise UnavailableError(f"{AT_ONCE} exports are being read here; ask again when one of them has ended.")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


def page(rows: Iterable[RowMapping], query: UsageQuery) -> str:
    """A page as CSV."""
    return _header(query) + _text(rows, query)


class _Export(StreamingResponse):
    """Streams lines, and closes their source when its reader leaves or takes too long."""

    def __init__(self, first: str, rest: AsyncGenerator[str, None]) -> None:
        super().__init__(_both(first, rest), media_type=MEDIA_TYPE, headers={"Vary": "Accept"})
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with aclosing(self._rest), asyncio.timeout(LONGEST_S):
            await super().__call__(scope, receive, send)


async def _both(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    yield first
    async for text in rest:
        yield text


def _header(query: UsageQuery) -> str:
    at = [] if query.step == "none" else [query.step]
    return _written([[*at, *map(member_of, query.group_by), *FIGURES]])


def _text(rows: Iterable[RowMapping], query: UsageQuery) -> str:
    return _written([_cell(row[name]) for name in (*query.names, *FIGURES)] for row in rows)


def _cell(value: Any) -> Any:
    """A value as a cell; labels that a spreadsheet would take for a formula get an apostrophe in front."""
    if isinstance(value, str) and value.startswith(FORMULA_SIGNS):
        return f"'{value}"
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value


def _written(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
