"""Counts of ``strict`` counters with an overdraft: what the others took, so that nobody goes beyond the known total."""

from data_plane.domain.regions.book import Book, Cell, Life, book_of, with_entry
from data_plane.domain.regions.rights import Figures, Rights, rolled
from data_plane.domain.regions.terms import Terms


def merge_taken(
    terms: Terms, state: Rights | None, book: Book, life: Life, cell: Cell, now_us: int
) -> tuple[Rights, Book] | None:
    """Take what another life counted; ``None`` when it is no news, or for a bygone id."""
    current = rolled(terms, state, now_us)
    book = book_of(book, terms.incarnation)
    old = book.cells.get(life, Cell(0))
    own = life[0] == terms.region and life[1] == terms.incarnation
    if own or not current.id - 1 <= life[2] <= current.id + 1 or sum(cell) <= sum(old):
        return None
    grown = (cell.taken - cell.returned) - (old.taken - old.returned)
    book = book._replace(cells=with_entry(book.cells, life, cell, current.id - 1))

    def heard(figures: Figures) -> Figures:
        return figures._replace(remote=figures.remote + grown)

    if life[2] == current.id:
        return current._replace(now=heard(current.now)), book
    if life[2] < current.id:
        return current._replace(before=heard(current.before)), book
    return current._replace(ahead=heard(current.ahead)), book


def taken_cells(state: Rights) -> tuple[tuple[int, Cell], ...]:
    """What to tell: (id, cell) of this window and the one before, where anything was taken."""
    pairs = ((state.id, state.now), (state.id - 1, state.before))
    return tuple((id, Cell(figures.taken)) for id, figures in pairs if figures.taken)
