"""Lists in pages: by cursor, so that what is added or removed meanwhile neither repeats nor hides an item."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, NamedTuple, TypeVar

from fastapi import Depends, Query

from control_plane.errors import FieldError, InvalidError
from control_plane.web.fields import View

Item = TypeVar("Item")
Shown = TypeVar("Shown", bound=View)

DEFAULT_ITEMS = 100
MAX_ITEMS = 1_000


class Page(NamedTuple):
    """At most ``limit`` items whose key comes after ``after``."""

    limit: int
    after: str | None


class Listing(View, Generic[Shown]):
    """One page: its items, and the cursor of the next page or ``null``."""

    items: list[Shown]
    next_cursor: str | None = None


def _page(
    limit: Annotated[int, Query(ge=1, le=MAX_ITEMS, description="items a page")] = DEFAULT_ITEMS,
    cursor: Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before")] = None,
) -> Page:
    if cursor is None:
        return Page(limit, None)
    try:
        key = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        key = "\0"
    if "\0" in key:
        raise InvalidError([FieldError("cursor", "is not a cursor that a list gave out")])
    return Page(limit, key)


PageQuery = Annotated[Page, Depends(_page)]


def listing(
    rows: Sequence[Item], page: Page, key: Callable[[Item], str], show: Callable[[Item], Shown]
) -> Listing[Shown]:
    """Make a page of ``rows``, which hold one more than ``page.limit`` when there is a next page."""
    kept = rows[: page.limit]
    more = len(rows) > page.limit
    cursor = base64.urlsafe_b64encode(key(kept[-1]).encode()).decode() if more else None
    return Listing(items=[show(row) for row in kept], next_cursor=cursor)
