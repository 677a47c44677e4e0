"""Lists in pages: by cursor, so that what is added or removed meanwhile neither repeats nor hides an item."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from fastapi import Depends, Query

from control_plane.errors import FieldError, InvalidError
from control_plane.web.fields import View

Item = TypeVar("Item")
Shown = TypeVar("Shown", bound=View)

DEFAULT_ITEMS = 100
MAX_ITEMS = 1_000
MAX_CURSOR_LENGTH = 1_024
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

Limit = Annotated[int, Query(ge=1, le=MAX_ITEMS, description="items a page")]
Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR_LENGTH, description="`next_cursor` of the page before")]
Prefix = Annotated[
    str | None,
    # Postgres takes no NUL in a text
    Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$", description="only names that begin like this"),
]


class Page(NamedTuple):
    """At most ``limit`` items whose key comes after ``after``, by name or by the field ``sort``."""

    limit: int
    after: str | None
    sort: str | None = None
    descending: bool = False


class Listing(View, Generic[Shown]):
    """One page: its items, and the cursor of the next page or ``null``."""

    items: list[Shown]
    next_cursor: str | None = None


def _page(limit: Limit = DEFAULT_ITEMS, cursor: Cursor = None) -> Page:
    return Page(limit, None if cursor is None else _key_in(cursor))


PageQuery = Annotated[Page, Depends(_page)]


def sorted_by(name: str, *others: str) -> Any:
    """A dependency that reads a page sorted by ``name``, or by one of ``others``; ``-`` in front turns it round."""

    def page(limit: Limit = DEFAULT_ITEMS, cursor: Cursor = None, sort: str = name) -> Page:
        field = sort.removeprefix("-")
        after = None if cursor is None else _key_in(cursor)
        return Page(limit, after, None if field == name else field, sort.startswith("-"))

    choices = [choice for field in (name, *others) for choice in (field, f"-{field}")]
    # only known here, and wanted in the OpenAPI document
    page.__annotations__["sort"] = Annotated[
        Literal[tuple(choices)], Query(description="by which field; `-` in front: from the last")
    ]
    return Depends(page)


def foreign_cursor() -> InvalidError:
    """The error for a cursor that this list did not give out, or not in this order."""
    return InvalidError([FieldError("cursor", "is not a cursor that this list gave out, in this order")])


def number_after(page: Page) -> int | None:
    """The number in the cursor of a list of what is numbered."""
    if page.after is None:
        return None
    if not page.after.isdecimal() or len(page.after) > 18:
        raise foreign_cursor()
    return int(page.after)


def _key_in(cursor: str) -> str:
    try:
        key = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise foreign_cursor() from None
    if not is_text(key):
        raise foreign_cursor()
    return key


def is_text(value: object) -> bool:
    """Whether Postgres takes this as a text: no NUL, and no half of a surrogate pair, which JSON can escape."""
    return isinstance(value, str) and _NO_TEXT.search(value) is None


def listing(
    rows: Sequence[Item], page: Page, key: Callable[[Item], str], show: Callable[[Item], Shown]
) -> Listing[Shown]:
    """Make a page of ``rows``, which hold one more than ``page.limit`` when there is a next page."""
    kept = rows[: page.limit]
    more = len(rows) > page.limit
    cursor = base64.urlsafe_b64encode(key(kept[-1]).encode()).decode() if more else None
    return Listing(items=[show(row) for row in kept], next_cursor=cursor)
