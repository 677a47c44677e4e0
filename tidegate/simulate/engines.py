# ruff: noqa: ARG002, D102 - the methods are those of Engine: one line each, some need less than others
"""One face for the four kinds of counters, so that a simulated region need not know which it runs."""

from typing import Any, NamedTuple, Protocol

from contract.limits import BUCKET_ALGORITHMS
from data_plane.domain.regions import bucket_counts, counts, loans, rights, transfers
from data_plane.domain.regions.book import Book, Cell, Life
from data_plane.domain.regions.messages import Ask, Give
from data_plane.domain.regions.terms import Terms
from data_plane.domain.regions.transfers import Basis
from tidegate.simulate.scenario import Scenario


class Taken(NamedTuple):
    """A decision as the region sees it; ``id`` is what an admission counts under."""

    allowed: bool
    id: int
    low: bool
    state: Any
    book: Book | None


class Moved(NamedTuple):
    """Both keys after a gift was made or taken; ``answer`` is for the asker."""

    state: Any
    book: Book
    gained: int
    low: bool
    answer: Give | None


class Engine(Protocol):
    """Steps of one kind of counter."""

    def decide(
        self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], cost: int, now_us: int
    ) -> Taken: ...

    def forget_us(self, terms: Terms, state: Any) -> int: ...

    def merge(
        self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], life: Life, cell: Cell, now_us: int
    ) -> tuple[Any, Book] | None: ...

    def cells(self, state: Any) -> tuple[tuple[int, Cell], ...]: ...


class Windows:
    """Rights of windows and logs."""

    def decide(self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], cost: int, now_us: int) -> Taken:
        found = rights.decide(terms, state, cost, now_us)
        return Taken(found.allowed, found.id, found.low, found.state, None)

    def forget_us(self, terms: Terms, state: Any) -> int:
        return rights.forget_us(terms, state)

    def give(self, terms: Terms, state: Any, book: Book, ask: Ask, now_us: int) -> Moved | None:
        found = transfers.give(terms, state, book, ask, now_us)
        return found and Moved(found.state, found.book, 0, False, found.answer)

    def receive(self, terms: Terms, state: Any, book: Book, answer: Give, cost: int, now_us: int) -> Moved | None:
        found = transfers.receive(terms, state, book, answer, cost, now_us)
        return found and Moved(found.state, found.book, found.gained, found.low, None)

    def basis(self, terms: Terms, state: Any, book: Book, cost: int, now_us: int) -> Basis:
        return transfers.basis(terms, state, book, cost, now_us)

    def merge(
        self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], life: Life, cell: Cell, now_us: int
    ) -> tuple[Any, Book] | None:
        return None

    def cells(self, state: Any) -> tuple[tuple[int, Cell], ...]:
        return ()


class Buckets:
    """Rights of buckets."""

    def decide(self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], cost: int, now_us: int) -> Taken:
        found = loans.decide_loan(terms, state, cost, now_us)
        return Taken(found.allowed, found.epoch, found.low, found.state, None)

    def forget_us(self, terms: Terms, state: Any) -> int:
        return loans.forget_loan_us(terms, state)

    def give(self, terms: Terms, state: Any, book: Book, ask: Ask, now_us: int) -> Moved | None:
        found = loans.give_loan(terms, state, book, ask, now_us)
        return found and Moved(found.state, found.book, 0, False, found.answer)

    def receive(self, terms: Terms, state: Any, book: Book, answer: Give, cost: int, now_us: int) -> Moved | None:
        found = loans.receive_loan(terms, state, book, answer, cost, now_us)
        return found and Moved(found.state, found.book, found.gained, found.low, None)

    def basis(self, terms: Terms, state: Any, book: Book, cost: int, now_us: int) -> Basis:
        return loans.loan_basis(terms, state, book, cost, now_us)

    def merge(
        self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], life: Life, cell: Cell, now_us: int
    ) -> tuple[Any, Book] | None:
        return None

    def cells(self, state: Any) -> tuple[tuple[int, Cell], ...]:
        return ()


class SharedWindows:
    """Counts of windows and logs."""

    def decide(self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], cost: int, now_us: int) -> Taken:
        found = counts.decide_count(terms, state, book, silent, cost, now_us)
        return Taken(found.allowed, found.id, False, found.state, found.book)

    def forget_us(self, terms: Terms, state: Any) -> int:
        return counts.forget_count_us(terms, state)

    def merge(
        self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], life: Life, cell: Cell, now_us: int
    ) -> tuple[Any, Book] | None:
        return counts.merge_cell(terms, state, book, silent, life, cell, now_us)

    def cells(self, state: Any) -> tuple[tuple[int, Cell], ...]:
        return counts.own_cells(state)


class SharedBuckets:
    """Counts of buckets."""

    def decide(self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], cost: int, now_us: int) -> Taken:
        found = bucket_counts.decide_level(terms, state, silent, cost, now_us)
        return Taken(found.allowed, 0, False, found.state, None)

    def forget_us(self, terms: Terms, state: Any) -> int:
        return bucket_counts.forget_level_us(terms, state)

    def merge(
        self, terms: Terms, state: Any, book: Book, silent: tuple[str, ...], life: Life, cell: Cell, now_us: int
    ) -> tuple[Any, Book] | None:
        return bucket_counts.merge_level(terms, state, book, silent, life, cell, now_us)

    def cells(self, state: Any) -> tuple[tuple[int, Cell], ...]:
        return ((state.born_us, Cell(state.taken, state.returned)),) if state.taken else ()


def engine_of(scenario: Scenario) -> Windows | Buckets | SharedWindows | SharedBuckets:
    """The steps that this scenario's counter takes."""
    is_bucket = scenario.algorithm in BUCKET_ALGORITHMS
    if scenario.mode == "shared":
        return SharedBuckets() if is_bucket else SharedWindows()
    return Buckets() if is_bucket else Windows()
