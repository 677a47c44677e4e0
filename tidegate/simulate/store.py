"""A region's store in virtual time: keys that expire, a marker, and ways to lose them. Every step on it is atomic."""

from collections import deque
from typing import Any

from data_plane.domain.regions.book import EMPTY, Book
from data_plane.domain.regions.marker import Marker

Name = tuple[str, int]
"""A counter and its generation."""


class SimulatedStore:
    """Values are immutable, so a copy of the mappings is a snapshot."""

    def __init__(self, run_id: str, policy: str) -> None:
        self.run_id = run_id
        self.policy = policy
        self.marker: Marker | None = None
        self.hot: dict[Name, tuple[Any, int]] = {}
        self.books: dict[Name, Book] = {}
        self.marks: dict[Name, int] = {}
        """When each counter was first marked, store's clock."""
        self.lease: tuple[int, int] = (-1, 0)
        """The node that holds the slice, and until when."""
        self.heard: dict[str, int] = {}
        """As of when each peer was last heard completely, store's clock."""
        self.handed_back_by: set[str] = set()
        self.peer_lives: dict[str, int] = {}
        self.handed_to: dict[str, int] = {}
        self._past: deque[tuple[int, SimulatedStore]] = deque()

    def load(self, name: Name, now_us: int) -> tuple[Any, Book]:
        """The counter's two keys; ``None`` and an empty book where there is none, or it has expired."""
        found = self.hot.get(name)
        if found is not None and now_us >= found[1]:
            del self.hot[name]
            self.books.pop(name, None)
            self.marks.pop(name, None)
            found = None
        return (found[0] if found is not None else None), self.books.get(name, EMPTY)

    def save(self, name: Name, state: Any, book: Book | None, forget_us: int) -> None:
        """Write the hot key, and the book if it changed."""
        self.hot[name] = (state, forget_us)
        if book is not None:
            self.books[name] = book

    def remember(self, now_us: int) -> None:
        """Keep a copy for a later restore."""
        copy = SimulatedStore(self.run_id, self.policy)
        copy.marker, copy.lease = self.marker, self.lease
        copy.hot, copy.books, copy.marks = dict(self.hot), dict(self.books), dict(self.marks)
        copy.heard, copy.handed_back_by = dict(self.heard), set(self.handed_back_by)
        copy.peer_lives, copy.handed_to = dict(self.peer_lives), dict(self.handed_to)
        self._past.append((now_us, copy))
        while self._past[0][0] < now_us - 5_000_000:
            self._past.popleft()

    def copy_of(self, when_us: int) -> "SimulatedStore":
        """The newest copy that is not younger than ``when_us``; an empty store where there is none."""
        older = [copy for at_us, copy in self._past if at_us <= when_us]
        return older[-1] if older else SimulatedStore(self.run_id, self.policy)
