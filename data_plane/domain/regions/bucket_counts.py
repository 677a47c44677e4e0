"""Counts of ``shared`` buckets: every region fills a whole bucket, and what others took is debited as soon as heard.

While a peer is silent the bucket fills only at the share of those who are heard, so that a long cut admits the rate
once and not once a region; the rest is withheld and settles what the silent ones took when they are heard again.
A store that may have forgotten what was taken begins empty, and what it hears first is where it counts from.

Quanta: a unit is ``unit x whole`` of them, with ``whole`` the sum of shares, so that parts of the rate stay exact.
"""

from typing import NamedTuple

from data_plane.domain.regions.book import Book, Cell, Life, book_of
from data_plane.domain.regions.terms import Terms

SLACK_US = 5_000_000
"""How long a full bucket's figures stay, so that peers hear of them."""


class Level(NamedTuple):
    """A shared bucket as of ``at_us``; ``level`` (quanta) is negative while others' takings are being paid off.

    ``taken`` and ``returned`` are units since ``born_us``.
    """

    incarnation: int
    at_us: int
    level: int
    born_us: int
    withheld: int = 0
    taken: int = 0
    returned: int = 0


class LevelDecision(NamedTuple):
    """``state`` ``None`` leaves what is stored."""

    allowed: bool
    remaining: int
    wait_us: int = 0
    delay_us: int = 0
    state: Level | None = None


def filled(terms: Terms, state: Level | None, silent: tuple[str, ...], now_us: int) -> Level:
    """The bucket as of now; full where there is none."""
    whole, heard = _parts(terms, silent)
    size = terms.size * terms.unit * whole
    if state is None or state.incarnation != terms.incarnation:
        level = size
        if terms.birth_us:
            level = min(size, terms.rate * heard * max(0, now_us - terms.birth_us))
        return Level(terms.incarnation, now_us, level, now_us)
    if now_us > state.at_us:
        passed_us = now_us - state.at_us
        level = min(size, state.level + terms.rate * heard * passed_us)
        most = size * (len(terms.shares) - 1)
        withheld = min(most, state.withheld + terms.rate * (whole - heard) * passed_us) if silent else state.withheld
        state = state._replace(at_us=now_us, level=level, withheld=withheld)
    if state.withheld and not silent:
        state = state._replace(level=min(size, state.level + state.withheld), withheld=0)
    return state


def decide_level(terms: Terms, state: Level | None, silent: tuple[str, ...], cost: int, now_us: int) -> LevelDecision:
    """Take ``cost`` units of tokens."""
    current = filled(terms, state, silent, now_us)
    whole, heard = _parts(terms, silent)
    unit = terms.unit * whole
    left = max(0, current.level // unit)
    if cost * unit > current.level:
        speed = terms.rate * heard
        wait_us = -1 if cost > terms.size or not speed else -(-(cost * unit - current.level) // speed)
        return LevelDecision(False, left, wait_us)
    delay_us = 0
    if terms.algorithm == "leaky_bucket":
        delay_us = -(-(terms.size * unit - current.level) // (terms.rate * whole))
    if cost == 0:
        return LevelDecision(True, left, delay_us=delay_us)
    after = current._replace(level=current.level - cost * unit, taken=current.taken + cost)
    return LevelDecision(True, after.level // unit, delay_us=delay_us, state=after)


def merge_level(
    terms: Terms, state: Level | None, book: Book, silent: tuple[str, ...], life: Life, cell: Cell, now_us: int
) -> tuple[Level, Book] | None:
    """Debit what another life took since last heard, down to what all others together could hold."""
    if life[0] == terms.region and life[1] == terms.incarnation:
        return None
    whole, _ = _parts(terms, silent)
    unit = terms.unit * whole
    book = book_of(book, terms.incarnation)
    older = [name for name in book.cells if name[:2] == life[:2] and name[2] < life[2]]
    if any(name[:2] == life[:2] and name[2] > life[2] for name in book.cells):
        return None
    old = book.cells.get(life, Cell(0))
    if terms.rules.newest_cell_wins and sum(cell) <= sum(old):
        return None
    grown = ((cell.taken - cell.returned) - (old.taken - old.returned)) * unit
    current = filled(terms, state, silent, now_us)
    if terms.birth_us and life not in book.cells and life[2] <= terms.birth_us:
        grown = 0
    from_withheld = max(0, min(current.withheld, grown))
    floor = -(len(terms.shares) - 1) * terms.size * unit
    level = min(terms.size * unit, max(floor, current.level - (grown - from_withheld)))
    cells = {name: entry for name, entry in book.cells.items() if name not in older}
    cells[life] = cell
    return current._replace(level=level, withheld=current.withheld - from_withheld), book._replace(cells=cells)


def forget_level_us(terms: Terms, state: Level) -> int:
    """Full, and told to everyone by then, it means the same as none."""
    whole, _ = _parts(terms, ())
    missing = terms.size * terms.unit * whole - state.level
    return state.at_us + -(-missing // (terms.rate * whole)) + SLACK_US


def _parts(terms: Terms, silent: tuple[str, ...]) -> tuple[int, int]:
    """The sum of all shares, and of those that are heard."""
    whole = max(1, sum(share for _, share in terms.shares))
    if not silent or not terms.rules.silent_keep_their_share:
        return whole, whole
    return whole, sum(share for region, share in terms.shares if region not in silent)
