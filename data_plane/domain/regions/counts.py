"""Counts of ``shared`` windows and logs: a region counts its own exactly and the others as last heard.

A peer that falls silent keeps what is its own: its share of what was left when it fell silent is reserved for it, under
each id, until it is heard again. So everyone may go on, and together they stay within what was left.
"""

from itertools import dropwhile
from typing import NamedTuple

from data_plane.domain.regions.book import Book, Cell, Life, book_of, with_entry
from data_plane.domain.regions.frame import id_at, start_us, weight
from data_plane.domain.regions.rights import Entry
from data_plane.domain.regions.terms import Terms, limit_at


class Count(NamedTuple):
    """Units under one id: own, of all other lives and regions as last heard, and reserved for silent peers."""

    taken: int = 0
    returned: int = 0
    remote: int = 0
    reserved: int = 0


class Counter(NamedTuple):
    """A shared counter of a window algorithm. ``silent``: the peers that ``reserved`` is for."""

    incarnation: int
    id: int
    now: Count = Count()
    before: Count = Count()
    ahead: Count = Count()
    silent: tuple[str, ...] | None = ()
    entries: tuple[Entry, ...] = ()


class CountDecision(NamedTuple):
    """``state`` and ``book`` ``None`` leave what is stored."""

    allowed: bool
    id: int
    remaining: int
    state: Counter | None = None
    book: Book | None = None


def rolled_count(terms: Terms, state: Counter | None, now_us: int) -> Counter:
    """The state under the id of now; a state of another incarnation is none."""
    id = id_at(terms.frame, now_us)
    if state is None or state.incarnation != terms.incarnation:
        return Counter(terms.incarnation, id)
    if id == state.id or (id < state.id and terms.rules.ids_never_go_back):
        return state
    if id == state.id + 1:
        return state._replace(id=id, now=state.ahead, before=state.now, ahead=Count(), silent=None)
    before = state.ahead if id == state.id + 2 else Count()
    return state._replace(id=id, now=Count(), before=before, ahead=Count(), silent=None)


def known(count: Count) -> int:
    """The world's total as known here."""
    return count.taken - count.returned + count.remote


def decide_count(
    terms: Terms, state: Counter | None, book: Book, silent: tuple[str, ...], cost: int, now_us: int
) -> CountDecision:
    """Take ``cost`` units while the world is under the limit as known. ``silent``: peers not heard of late, by name."""
    current = rolled_count(terms, state, now_us)
    book = book_of(book, terms.incarnation)
    changed_book = None
    if current.silent != silent:
        current, changed_book = _with_reserves(terms, current, book, silent)
    room = room_left(terms, current, now_us)
    if cost > room or cost == 0:
        kept = current if changed_book is not None else None
        return CountDecision(cost == 0, current.id, max(0, room), kept, changed_book)
    entries = current.entries
    if terms.algorithm == "sliding_log":
        at_us = _log_clock(current, now_us)
        length_us = terms.frame.length_us
        entries = (*dropwhile(lambda entry: entry.entered_us + length_us <= at_us, entries), Entry(at_us, cost))
    after = current._replace(now=current.now._replace(taken=current.now.taken + cost), entries=entries)
    return CountDecision(True, current.id, room - cost, after, changed_book)


def room_left(terms: Terms, state: Counter, now_us: int) -> int:
    """Units that may still be taken, with silent peers' shares kept for them. Negative: over the limit as known."""
    limit = limit_at(terms, state.id)
    now, before = state.now, state.before
    room = limit - known(now) - now.reserved
    if terms.algorithm == "fixed_window":
        return room
    if terms.algorithm == "sliding_log":
        at_us = _log_clock(state, now_us)
        length_us = terms.frame.length_us
        left_us = max(0, min(length_us, start_us(terms.frame, state.id + 1) - at_us))
        own = sum(entry.cost for entry in state.entries if entry.entered_us + length_us > at_us)
        others = -(-(before.remote + before.reserved) * left_us // length_us)
        return limit - own - now.remote - now.reserved - others
    ticks = terms.frame.ticks
    left = weight(terms.frame, state.id, now_us)
    # Parts that nobody took weigh as the region's own rights would: f x (what was left before) + (1-f) x the rest.
    spare_before = limit - before.reserved - known(before)
    weighed = (left * spare_before + (ticks - left) * (limit - now.reserved)) // ticks - known(now)
    return min(room, weighed)


def merge_cell(
    terms: Terms, state: Counter | None, book: Book, silent: tuple[str, ...], life: Life, cell: Cell, now_us: int
) -> tuple[Counter, Book] | None:
    """Take what another life counted; ``None`` when it is no news or for a bygone id. Our own life is never merged.

    What is kept for silent peers is a part of what was left when they fell silent: fixed before news changes that.
    """
    if life[0] == terms.region and life[1] == terms.incarnation:
        return None
    current = rolled_count(terms, state, now_us)
    book = book_of(book, terms.incarnation)
    if not current.id - 1 <= life[2] <= current.id + 1:
        return None
    name = life if terms.rules.incarnations_summed else (life[0], 0, life[2])
    old = book.cells.get(name, Cell(0))
    if terms.rules.newest_cell_wins and sum(cell) <= sum(old):
        return None
    if current.silent != silent:
        current, book = _with_reserves(terms, current, book, silent)
    grown = (cell.taken - cell.returned) - (old.taken - old.returned)
    book = book._replace(cells=with_entry(book.cells, name, cell, current.id - 1))

    def heard(count: Count) -> Count:
        return count._replace(remote=count.remote + grown)

    if life[2] == current.id:
        return current._replace(now=heard(current.now)), book
    if life[2] < current.id:
        return current._replace(before=heard(current.before)), book
    return current._replace(ahead=heard(current.ahead)), book


def own_cells(state: Counter) -> tuple[tuple[int, Cell], ...]:
    """What to tell: (id, cell) of this window and the one before, where anything was counted."""
    pairs = ((state.id, state.now), (state.id - 1, state.before))
    return tuple((id, Cell(count.taken, count.returned)) for id, count in pairs if count.taken)


def forget_count_us(terms: Terms, state: Counter) -> int:
    """From this instant on the state means the same as none."""
    newest = state.id if state.ahead == Count() else state.id + 1
    return start_us(terms.frame, newest + 2) + terms.skew_us


def _with_reserves(terms: Terms, state: Counter, book: Book, silent: tuple[str, ...]) -> tuple[Counter, Book]:
    """Reserve for who fell silent, release for who is heard again."""
    if not terms.rules.silent_keep_their_share:
        return state._replace(silent=silent), book
    reserves = {name: units for name, units in book.reserves.items() if name[0] in silent and name[1] >= state.id - 1}
    whole = max(1, sum(share for _, share in terms.shares))
    shares = dict(terms.shares)

    def reserved(id: int, count: Count) -> Count:
        left = max(0, limit_at(terms, id) - known(count))
        for peer in silent:
            if (peer, id) not in reserves:
                reserves[(peer, id)] = -(-left * shares.get(peer, 0) // whole)
        return count._replace(reserved=sum(reserves[(peer, id)] for peer in silent))

    before, now = reserved(state.id - 1, state.before), reserved(state.id, state.now)
    return state._replace(before=before, now=now, silent=silent), book._replace(reserves=reserves)


def _log_clock(state: Counter, now_us: int) -> int:
    return max(now_us, state.entries[-1].entered_us) if state.entries else now_us
