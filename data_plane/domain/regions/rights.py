"""Rights of ``strict`` windows and logs: a region spends only what it owns.

Per id w: U(w) units taken, O(w) = E(w) + given to us - given away. A window admits iff U(w) + c <= O(w). With
previous weight f a sliding window also wants f U(w-1) + U(w) + c <= f O(w-1) + (1-f) O(w): summed over the regions that
is at most L, because both sums of O are. A log's last window holds at most min(O(w-1), O(w)).
"""

from itertools import dropwhile
from typing import NamedTuple

from data_plane.domain.regions.frame import id_at, start_us, weight
from data_plane.domain.regions.pace import STILL, Pace, per_second, quicken
from data_plane.domain.regions.terms import Terms, share_at


class Figures(NamedTuple):
    """Units under one id. ``net``: gifts taken less gifts made."""

    taken: int = 0
    net: int = 0


class Entry(NamedTuple):
    """One admitted request of a log."""

    entered_us: int
    cost: int


class Rights(NamedTuple):
    """A strict counter of a window algorithm. ``ahead`` holds what is known of the next id already."""

    incarnation: int
    id: int
    now: Figures = Figures()
    before: Figures = Figures()
    ahead: Figures = Figures()
    pace: Pace = STILL
    entries: tuple[Entry, ...] = ()


class Decision(NamedTuple):
    """``state`` ``None`` leaves what is stored; ``remaining`` are the local rights left; ``low``: ask for more."""

    allowed: bool
    id: int
    remaining: int
    low: bool
    state: Rights | None = None


def rolled(terms: Terms, state: Rights | None, now_us: int) -> Rights:
    """The state under the id of now; a state of another incarnation is none."""
    id = id_at(terms.frame, now_us)
    if state is None or state.incarnation != terms.incarnation:
        return Rights(terms.incarnation, id)
    if id == state.id or (id < state.id and terms.rules.ids_never_go_back):
        return state
    if id == state.id + 1:
        return state._replace(id=id, now=state.ahead, before=state.now, ahead=Figures())
    before = state.ahead if id == state.id + 2 else Figures()
    return state._replace(id=id, now=Figures(), before=before, ahead=Figures())


def owned(terms: Terms, state: Rights, id: int) -> int:
    """O of the current id, of the one before or of the next one."""
    figures = state.now if id == state.id else (state.before if id < state.id else state.ahead)
    return share_at(terms, id) + figures.net


def spare(terms: Terms, state: Rights, now_us: int) -> int:
    """Units that may still be taken now; negative is a shortfall."""
    own = owned(terms, state, state.id)
    if terms.algorithm == "sliding_log":
        at_us = _log_clock(state, now_us)
        used = sum(entry.cost for entry in state.entries if entry.entered_us + terms.frame.length_us > at_us)
        return _log_room(terms, state, own) - used
    room = own - state.now.taken
    if terms.algorithm == "sliding_window" and terms.rules.sliding_keeps_both:
        room = min(room, _weighed_room(terms, state, own, now_us))
    return room


def giveable(terms: Terms, state: Rights, id: int, now_us: int) -> int:
    """Units of ``id`` that may be given away: what is left keeps every condition of the donor."""
    if id == state.id + 1:
        if terms.rules.next_id_near_boundary and now_us + terms.skew_us < start_us(terms.frame, id):
            return 0
        return owned(terms, state, id)
    if terms.algorithm == "sliding_log":
        return _log_giveable(terms, state, id, now_us) if id >= state.id - 1 else 0
    if id != state.id:
        return 0
    own = owned(terms, state, id)
    room = own - state.now.taken
    if terms.algorithm == "sliding_window" and terms.rules.sliding_give_keeps_both:
        # A gift lowers (1-f) O(w) by less than itself, so what may be taken may be given.
        room = min(room, _weighed_room(terms, state, own, now_us))
    return room


def scarcest_id(terms: Terms, state: Rights) -> int:
    """The id whose rights are missed most: a log needs those of the previous id too."""
    if terms.algorithm == "sliding_log" and owned(terms, state, state.id - 1) < owned(terms, state, state.id):
        return state.id - 1
    return state.id


def decide(terms: Terms, state: Rights | None, cost: int, now_us: int) -> Decision:
    """Take ``cost`` units if the region owns them."""
    current = rolled(terms, state, now_us)
    room = spare(terms, current, now_us)
    if cost > room:
        return Decision(False, current.id, max(0, room), low=cost > 0)
    if cost == 0:
        return Decision(True, current.id, max(0, room), low=False)
    figures = current.now._replace(taken=current.now.taken + cost)
    entries = current.entries
    if terms.algorithm == "sliding_log":
        at_us = _log_clock(current, now_us)
        kept_us = terms.frame.length_us + terms.skew_us
        entries = (*dropwhile(lambda entry: entry.entered_us + kept_us <= at_us, entries), Entry(at_us, cost))
    after = current._replace(now=figures, pace=quicken(current.pace, cost, now_us), entries=entries)
    left = room - cost
    return Decision(True, current.id, left, low=left < low_water(terms, after, cost, now_us), state=after)


def put_back(terms: Terms, state: Rights | None, id: int, cost: int, now_us: int) -> Rights | None:
    """Give back what a decision took under ``id`` when another limit denied; ``None`` where that id is over.

    A log's entry stays: its costs leave by age alone.
    """
    current = rolled(terms, state, now_us)
    if terms.algorithm == "sliding_log":
        return None
    if id == current.id:
        return current._replace(now=current.now._replace(taken=max(0, current.now.taken - cost)))
    if id == current.id - 1:
        return current._replace(before=current.before._replace(taken=max(0, current.before.taken - cost)))
    return None


def demand(terms: Terms, state: Rights, now_us: int) -> int:
    """Units a second: by the window's average or by the last second, whichever is more."""
    elapsed_us = max(1_000_000, now_us - start_us(terms.frame, state.id))
    return max(state.now.taken * 1_000_000 // elapsed_us, per_second(state.pace, now_us))


def low_water(terms: Terms, state: Rights, cost: int, now_us: int) -> int:
    """Below this many units a region asks for more."""
    if not terms.rules.asks_early:
        return 0
    return max(cost, terms.horizon_us * demand(terms, state, now_us) // 1_000_000)


def forget_us(terms: Terms, state: Rights) -> int:
    """From this instant on the state means the same as none: two windows and the skew past the id's start.

    What was given of the next id must be known as long as that one lives.
    """
    newest = state.id if state.ahead == Figures() else state.id + 1
    return start_us(terms.frame, newest + 2) + terms.skew_us


def _weighed_room(terms: Terms, state: Rights, own: int, now_us: int) -> int:
    """floor(f (O(w-1) - U(w-1)) + (1-f) O(w)) - U(w), in whole ticks of weight."""
    left = weight(terms.frame, state.id, now_us)
    before = owned(terms, state, state.id - 1) - state.before.taken
    return (left * before + (terms.frame.ticks - left) * own) // terms.frame.ticks - state.now.taken


def _log_clock(state: Rights, now_us: int) -> int:
    """Entries stay in order even when the clock steps back."""
    return max(now_us, state.entries[-1].entered_us) if state.entries else now_us


def _log_room(terms: Terms, state: Rights, own: int) -> int:
    return min(own, owned(terms, state, state.id - 1)) if terms.rules.log_keeps_both else own


def _log_giveable(terms: Terms, state: Rights, id: int, now_us: int) -> int:
    """The receiver's clock may be behind by the skew: entries that it would still count stay covered."""
    oldest_us = _log_clock(state, now_us) - terms.frame.length_us - terms.skew_us
    used = sum(entry.cost for entry in state.entries if entry.entered_us > oldest_us)
    return owned(terms, state, id) - used
