"""Moving rights of ``strict`` windows: what a donor's store does with a question, and a receiver's with the answer.

Both are single steps on one counter's two keys. A gift is debited before anybody can hear of it and credited once,
because it says all that was ever given: the difference to what the receiver remembers is news.
"""

from typing import NamedTuple

from data_plane.domain.regions.book import NOTHING, Book, Gift, Life, book_of, with_entry
from data_plane.domain.regions.messages import Ask, Give
from data_plane.domain.regions.rights import (
    Figures,
    Rights,
    demand,
    giveable,
    low_water,
    rolled,
    scarcest_id,
    spare,
)
from data_plane.domain.regions.terms import Terms


class Given(NamedTuple):
    """The donor's two keys after the question, and the answer."""

    state: Rights
    book: Book
    answer: Give


class Received(NamedTuple):
    """The receiver's two keys after the answer; ``gained`` is 0 for what was known. ``low``: ask on."""

    state: Rights
    book: Book
    gained: int
    have: int
    low: bool


class Basis(NamedTuple):
    """What a question has to say, read from the asker's store."""

    id: int
    have: int
    rate: int
    known: tuple[tuple[str, int, Gift], ...]
    """By donor and its incarnation."""
    low: bool


def give(terms: Terms, state: Rights | None, book: Book, ask: Ask, now_us: int) -> Given | None:
    """Answer ``ask``; ``None`` (say nothing) when it is about another generation of the counter."""
    if terms.rules.generation_checked and ask.generation != terms.generation:
        return None
    current = rolled(terms, state, now_us)
    book = book_of(book, terms.incarnation)
    to: Life = (ask.sender, ask.incarnation if terms.rules.gifts_addressed else 0, ask.id)
    total = book.given.get(to, NOTHING)
    knows_all = total == (ask.known if ask.to_incarnation == terms.incarnation else NOTHING)
    left = giveable(terms, current, ask.id, now_us)
    units = 0
    if (knows_all or not terms.rules.known_checked) and left > 0:
        units = max(1, left // 2) if terms.rules.gives_half else left
    if units:
        total = Gift(total.units + units)
        book = book._replace(given=with_entry(book.given, to, total, current.id - 1))
        if terms.rules.donor_pays_first:
            current = _moved(current, ask.id, -units)
    answer = Give(
        key=ask.key,
        generation=ask.generation,
        id=ask.id,
        sender=terms.region,
        incarnation=terms.incarnation,
        to_incarnation=ask.incarnation,
        total=total if terms.rules.gifts_absolute else Gift(units),
        have=max(0, left - units),
        is_empty=knows_all and units == 0,
        asked_us=ask.sent_us,
        sent_us=now_us,
    )
    return Given(current, book, answer)


def receive(terms: Terms, state: Rights | None, book: Book, answer: Give, cost: int, now_us: int) -> Received | None:
    """Take what is new in ``answer``; ``None`` when it is for another generation, incarnation or a bygone id.

    ``cost`` is what the request wants that made the region ask: less than that is low.
    """
    rules = terms.rules
    if rules.generation_checked and answer.generation != terms.generation:
        return None
    if rules.gifts_addressed and answer.to_incarnation != terms.incarnation:
        return None
    current = rolled(terms, state, now_us)
    book = book_of(book, terms.incarnation)
    id = answer.id
    if rules.gift_id_checked and not current.id - 1 <= id <= current.id + 1:
        return None
    life: Life = (answer.sender, answer.incarnation, id)
    known = book.received.get(life, NOTHING).units if rules.gifts_absolute else 0
    gained = max(0, answer.total.units - known)
    if gained:
        current = _moved(current, id if rules.gift_id_checked else current.id, gained)
        if not rules.negative_rights:
            current = _moved(current, current.id, max(0, -(spare(terms, current, now_us) - gained)))
        if rules.gifts_remembered:
            book = book._replace(received=with_entry(book.received, life, answer.total, current.id - 1))
    have = spare(terms, current, now_us)
    low = have < low_water(terms, current, cost, now_us)
    return Received(current, book, gained, max(0, have), low)


def basis(terms: Terms, state: Rights | None, book: Book, cost: int, now_us: int) -> Basis:
    """What to ask with, now, for a request of ``cost``."""
    current = rolled(terms, state, now_us)
    asks_id = scarcest_id(terms, current)
    received = book_of(book, terms.incarnation).received
    known = tuple((donor, life, gift) for (donor, life, id), gift in received.items() if id == asks_id)
    have = max(0, spare(terms, current, now_us))
    low = have < low_water(terms, current, cost, now_us)
    return Basis(asks_id, have, demand(terms, current, now_us), known, low)


def _moved(state: Rights, id: int, units: int) -> Rights:
    """``units`` more (or less) owned under ``id``."""

    def moved(figures: Figures) -> Figures:
        return figures._replace(net=figures.net + units)

    if id == state.id:
        return state._replace(now=moved(state.now))
    return state._replace(before=moved(state.before)) if id < state.id else state._replace(ahead=moved(state.ahead))
