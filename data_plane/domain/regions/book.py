"""What a counter's second key holds: gifts by peer and id, peers' cells, shares kept for peers that are not heard.

It exists only once a peer has spoken, and shares the counter's hash tag: one script reads and writes both.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

Life = tuple[str, int, int]
"""A region, one incarnation of its store, and an id (for shared buckets: the birth of the figures, microseconds)."""

V = TypeVar("V")


class Gift(NamedTuple):
    """All that one region ever gave another under an id: units of rights or capacity; for buckets tokens in quanta."""

    units: int = 0
    quanta: int = 0


NOTHING = Gift()


class Cell(NamedTuple):
    """What one incarnation of a region counted under an id; both figures only grow."""

    taken: int
    returned: int = 0


class Book(NamedTuple):
    """Mappings are never changed in place. Like the hot state it belongs to one incarnation of its store."""

    incarnation: int = 0
    given: Mapping[Life, Gift] = {}
    received: Mapping[Life, Gift] = {}
    cells: Mapping[Life, Cell] = {}
    reserves: Mapping[tuple[str, int], int] = {}


EMPTY = Book()


def book_of(book: Book, incarnation: int) -> Book:
    """The book of this incarnation; another one's is empty.

    A restored copy's book must not be believed either: a gift that it remembers was made by another life, and saying it
    again in this one's name would give it twice.
    """
    return book if book.incarnation == incarnation else Book(incarnation)


def with_entry(entries: Mapping[Life, V], life: Life, value: V, oldest_id: int) -> dict[Life, V]:
    """``entries`` with one replaced, without those of ids before ``oldest_id``."""
    kept = {name: entry for name, entry in entries.items() if name[2] >= oldest_id}
    kept[life] = value
    return kept
