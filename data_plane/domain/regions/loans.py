"""Rights of ``strict`` buckets: a region owns capacity, fills it at the rate of that capacity, and lends parts of it.

Tokens are counted in quanta of ``unit x size`` a unit, so that capacity C fills by exactly ``rate x C`` quanta each
microsecond. All capacity together is at most ``size``, all tokens at most that: any interval t admits at most
burst + rate x t. Loans end with the epoch; the lender takes its capacity back a skew later, without tokens.
"""

from typing import NamedTuple

from contract.rights import MAX_QUANTA, MAX_UNITS
from data_plane.domain.regions.book import NOTHING, Book, Gift, Life, book_of, with_entry
from data_plane.domain.regions.frame import id_at, start_us
from data_plane.domain.regions.messages import Ask, Give
from data_plane.domain.regions.pace import STILL, Pace, per_second, quicken
from data_plane.domain.regions.terms import Terms, share_at
from data_plane.domain.regions.transfers import Basis


class Loan(NamedTuple):
    """A strict bucket as of ``at_us``: tokens in quanta; units lent and borrowed under ``epoch``, and lent before."""

    incarnation: int
    epoch: int
    at_us: int
    level: int
    lent: int = 0
    borrowed: int = 0
    lent_before: int = 0
    pace: Pace = STILL


class LoanDecision(NamedTuple):
    """``wait_us`` is until the same request passes if nothing moves, -1 never; ``delay_us`` a leaky bucket's turn."""

    allowed: bool
    epoch: int
    remaining: int
    low: bool
    wait_us: int = 0
    delay_us: int = 0
    state: Loan | None = None


class LoanGiven(NamedTuple):
    """The donor's two keys after a question, and the answer."""

    state: Loan
    book: Book
    answer: Give


class LoanReceived(NamedTuple):
    """The receiver's two keys after the answer."""

    state: Loan
    book: Book
    gained: int
    have: int
    low: bool


SMALLEST_LOAN = 20
"""No loan under one part in this many of the whole capacity."""


def quantum(terms: Terms) -> int:
    """Quanta in a unit."""
    return terms.unit * max(1, terms.size)


def fill_speed(terms: Terms, capacity: int) -> int:
    """Quanta a microsecond. Size 0: a region that keeps to its own part, of a bucket too large and slow to lend of."""
    return terms.rate * capacity if terms.size else terms.rate


def advanced(terms: Terms, state: Loan | None, now_us: int) -> Loan:
    """The bucket as of now. A clock that stepped back finds it as it was."""
    if state is None or state.incarnation != terms.incarnation:
        state = _untouched(terms, now_us)
    epoch = id_at(terms.frame, now_us)
    # Longer ago than two epochs it is full anyway: an epoch is at least three times what filling takes.
    oldest_us = start_us(terms.frame, epoch - 1)
    if state.at_us < oldest_us:
        state = Loan(
            state.incarnation, epoch - 1, oldest_us, min(state.level, _base(terms, oldest_us) * quantum(terms))
        )
    while state.at_us < now_us:
        begins_us = start_us(terms.frame, state.epoch)
        ends_us = start_us(terms.frame, state.epoch + 1)
        settled_us = begins_us + terms.skew_us
        until_us = min(now_us, settled_us if state.at_us < settled_us else ends_us)
        state = _filled(terms, state, until_us)
        if until_us == settled_us and until_us < ends_us:
            state = _raised(terms, state._replace(lent_before=0))
        elif until_us == ends_us:
            state = _ended(terms, state)
    return state


def capacity_now(terms: Terms, state: Loan) -> int:
    """Units that this region's bucket holds."""
    settled = state.at_us >= start_us(terms.frame, state.epoch) + terms.skew_us or not terms.rules.lender_waits
    away = 0 if settled else state.lent_before
    return max(0, _base(terms, state.at_us) + state.borrowed - state.lent - away)


def decide_loan(terms: Terms, state: Loan | None, cost: int, now_us: int) -> LoanDecision:
    """Take ``cost`` units of tokens."""
    current = advanced(terms, state, now_us)
    quanta = quantum(terms)
    capacity = capacity_now(terms, current)
    left = current.level // quanta
    speed = fill_speed(terms, capacity)
    if cost * quanta > current.level:
        missing = cost * quanta - current.level
        wait_us = -1 if cost > capacity or speed == 0 else -(-missing // speed)
        # Demand counts even when denied, or two starving regions would lend to and fro for ever.
        wanted = current._replace(pace=quicken(current.pace, cost, now_us))
        return LoanDecision(False, current.epoch, left, low=cost > 0 and terms.size > 0, wait_us=wait_us, state=wanted)
    delay_us = 0
    if terms.algorithm == "leaky_bucket" and speed:
        delay_us = -(-(capacity * quanta - current.level) // speed)
    if cost == 0:
        return LoanDecision(True, current.epoch, left, low=False, delay_us=delay_us)
    after = current._replace(level=current.level - cost * quanta, pace=quicken(current.pace, cost, now_us))
    left = after.level // quanta
    low = terms.size > 0 and left < _low_water(terms, after, cost, now_us)
    return LoanDecision(True, current.epoch, left, low=low, delay_us=delay_us, state=after)


def give_loan(terms: Terms, state: Loan | None, book: Book, ask: Ask, now_us: int) -> LoanGiven | None:
    """Lend by demand: towards capacities in the ratio of the two rates, at most half, nothing under 5% of the whole."""
    if terms.rules.generation_checked and ask.generation != terms.generation:
        return None
    current = advanced(terms, state, now_us)
    book = book_of(book, terms.incarnation)
    to: Life = (ask.sender, ask.incarnation if terms.rules.gifts_addressed else 0, ask.id)
    total = book.given.get(to, NOTHING)
    knows_all = total == (ask.known if ask.to_incarnation == terms.incarnation else NOTHING)
    units = 0
    sayable = total.quanta + current.level < MAX_QUANTA and total.units + terms.size < MAX_UNITS
    if ask.id == current.epoch and sayable and (knows_all or not terms.rules.known_checked):
        units = _loan_size(terms, current, ask, now_us)
    gift = Gift(units)
    if units:
        capacity = capacity_now(terms, current)
        # Rounded up, so that what stays fits into the capacity that stays.
        gift = Gift(units, -(-current.level * units // capacity))
        total = Gift(total.units + gift.units, total.quanta + gift.quanta)
        book = book._replace(given=with_entry(book.given, to, total, current.epoch - 1))
        if terms.rules.donor_pays_first:
            kept = current.level - (gift.quanta if terms.rules.tokens_move_along else 0)
            current = current._replace(lent=current.lent + units, level=kept)
    answer = Give(
        key=ask.key,
        generation=ask.generation,
        id=ask.id,
        sender=terms.region,
        incarnation=terms.incarnation,
        to_incarnation=ask.incarnation,
        total=total if terms.rules.gifts_absolute else gift,
        have=capacity_now(terms, current),
        is_empty=knows_all and units == 0,
        asked_us=ask.sent_us,
        sent_us=now_us,
    )
    return LoanGiven(current, book, answer)


def receive_loan(
    terms: Terms, state: Loan | None, book: Book, answer: Give, cost: int, now_us: int
) -> LoanReceived | None:
    """Add what is new of a loan of this epoch; ``None`` for any other generation, incarnation or epoch.

    ``cost`` is what the request wants that made the region ask: less than that is low.
    """
    rules = terms.rules
    if rules.generation_checked and answer.generation != terms.generation:
        return None
    if rules.gifts_addressed and answer.to_incarnation != terms.incarnation:
        return None
    current = advanced(terms, state, now_us)
    book = book_of(book, terms.incarnation)
    if rules.gift_id_checked and answer.id != current.epoch:
        return None
    life: Life = (answer.sender, answer.incarnation, answer.id)
    known = book.received.get(life, NOTHING) if rules.gifts_absolute else NOTHING
    gained = max(0, answer.total.units - known.units)
    if gained:
        current = current._replace(
            borrowed=current.borrowed + gained, level=current.level + answer.total.quanta - known.quanta
        )
        if rules.gifts_remembered:
            book = book._replace(received=with_entry(book.received, life, answer.total, current.epoch - 1))
    left = current.level // quantum(terms)
    return LoanReceived(current, book, gained, left, left < _low_water(terms, current, cost, now_us))


def loan_basis(terms: Terms, state: Loan | None, book: Book, cost: int, now_us: int) -> Basis:
    """What to ask with, now, for a request of ``cost``: ``have`` is capacity."""
    current = advanced(terms, state, now_us)
    received = book_of(book, terms.incarnation).received
    known = tuple((donor, life, gift) for (donor, life, id), gift in received.items() if id == current.epoch)
    left = current.level // quantum(terms)
    rate = per_second(current.pace, now_us)
    low = left < _low_water(terms, current, cost, now_us)
    return Basis(current.epoch, capacity_now(terms, current), rate, known, low)


def forget_loan_us(terms: Terms, state: Loan) -> int:
    """From here on the state means the same as none: full, and with loans a skew past the epoch's end at least."""
    capacity = capacity_now(terms, state)
    speed = fill_speed(terms, max(1, capacity))
    full_us = state.at_us + -(-(capacity * quantum(terms) - state.level) // speed)
    if not (state.lent or state.borrowed or state.lent_before):
        return full_us
    settled_us = start_us(terms.frame, state.epoch + 1) + terms.skew_us
    return max(full_us, settled_us + quantum(terms) // terms.rate)


def _base(terms: Terms, at_us: int) -> int:
    """Capacity without loans. A raised share counts a skew into its epoch: every cut holds by then."""
    epoch = id_at(terms.frame, at_us)
    share = share_at(terms, epoch)
    if at_us >= start_us(terms.frame, epoch) + terms.skew_us:
        return share
    return min(share, share_at(terms, epoch - 1))


def _untouched(terms: Terms, now_us: int) -> Loan:
    """Full, unless this store may have forgotten what was spent: then empty at its birth."""
    if terms.birth_us and terms.rules.quiet_after_birth:
        at_us = min(now_us, terms.birth_us)
        return Loan(terms.incarnation, id_at(terms.frame, at_us), at_us, 0)
    return Loan(terms.incarnation, id_at(terms.frame, now_us), now_us, _base(terms, now_us) * quantum(terms))


def _filled(terms: Terms, state: Loan, until_us: int) -> Loan:
    capacity = capacity_now(terms, state)
    level = state.level + fill_speed(terms, capacity) * (until_us - state.at_us)
    return state._replace(at_us=until_us, level=min(level, max(capacity * quantum(terms), 0)))


def _raised(terms: Terms, state: Loan) -> Loan:
    """Capacity is back; with the rule off, as full as it may be."""
    if terms.rules.raise_mints_nothing:
        return state
    return state._replace(level=capacity_now(terms, state) * quantum(terms))


def _ended(terms: Terms, state: Loan) -> Loan:
    """The next epoch begins: what was borrowed is gone at once, what was lent comes back after the skew."""
    kept = 0 if terms.rules.borrower_drops else state.borrowed
    begun = state._replace(epoch=state.epoch + 1, borrowed=kept, lent=0, lent_before=state.lent)
    return begun._replace(level=min(begun.level, capacity_now(terms, begun) * quantum(terms)))


def _low_water(terms: Terms, state: Loan, cost: int, now_us: int) -> int:
    if not terms.rules.asks_early:
        return 0
    return max(cost, terms.horizon_us * per_second(state.pace, now_us) // 1_000_000)


def _loan_size(terms: Terms, state: Loan, ask: Ask, now_us: int) -> int:
    capacity = capacity_now(terms, state)
    own_rate = per_second(state.pace, now_us)
    fair = (capacity + ask.have) * own_rate // max(1, own_rate + ask.rate)
    units = min(capacity - fair, capacity // 2 if terms.rules.gives_half else capacity)
    smallest = max(1, terms.size // SMALLEST_LOAN) if terms.rules.small_loans_refused else 1
    return units if units >= smallest else 0
