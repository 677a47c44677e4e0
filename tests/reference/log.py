"""``sliding_log``: every admitted request is remembered until it is a window old."""

from itertools import dropwhile
from typing import NamedTuple

from data_plane.store.packing import Outcome
from tests.reference.verdict import Stored, Verdict, denied, denied_forever, peeked
from tidegate.contract.limits import LimitRule, nominal_window_us


class Entry(NamedTuple):
    """One admitted request: it counts while ``now < entered_us + window``."""

    entered_us: int
    cost: int


class LogState(NamedTuple):
    """Admitted requests, oldest first; never empty."""

    entries: tuple[Entry, ...]


def sliding_log(rule: LimitRule, state: LogState | None, cost: int, now_us: int) -> Verdict[LogState]:
    """The costs of the last window sum up to at most the limit, at every instant."""
    window_us = nominal_window_us(rule)
    stored = state.entries if state else ()
    # Entries stay in order even when the clock steps back.
    at_us = max(now_us, stored[-1].entered_us) if stored else now_us
    entries = tuple(dropwhile(lambda entry: entry.entered_us + window_us <= at_us, stored))
    empties_us = entries[-1].entered_us + window_us - now_us if entries else 0
    if rule.limit == 0:
        return denied_forever(0, empties_us)
    room = rule.limit - sum(entry.cost for entry in entries)
    if cost > rule.limit:
        return denied_forever(max(0, room), empties_us)
    if cost > room:
        return denied(max(0, room), empties_us, _leaves_us(entries, cost - room) + window_us - now_us)
    if cost == 0:
        return peeked(room, empties_us)
    lasts_us = at_us + window_us
    return Verdict(
        Outcome(allowed=True, remaining=room, reset_us=empties_us, retry_us=0, delay_us=0),
        Outcome(allowed=True, remaining=room - cost, reset_us=lasts_us - now_us, retry_us=0, delay_us=0),
        on_consumed=Stored(LogState((*entries, Entry(at_us, cost))), lasts_us),
    )


def _leaves_us(entries: tuple[Entry, ...], missing: int) -> int:
    """When the entry came whose leaving frees the ``missing`` units."""
    freed = 0
    for entry in entries:
        freed += entry.cost
        if freed >= missing:
            return entry.entered_us
    raise AssertionError("a cost within the limit fits once every entry has left")
