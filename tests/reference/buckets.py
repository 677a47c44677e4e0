"""``token_bucket`` and ``leaky_bucket``: the generic cell rate algorithm (ITU-T I.371) on exact fractions.

What was taken is a debt counted in quanta: a unit of cost is ``unit`` quanta, and ``rate`` quanta drain each
microsecond (limit / window in lowest terms is rate / unit), so no fraction is ever lost. No debt means a full bucket.
"""

from typing import NamedTuple

from data_plane.store.packing import Outcome
from tests.reference.verdict import Stored, Verdict, denied, denied_forever, peeked
from tidegate.contract.limits import LimitRule, bucket_rate, capacity


class BucketState(NamedTuple):
    """A debt as of ``at_us``, with the rule (quanta per us, quanta per unit, units) that it was counted under."""

    at_us: int
    debt: int
    rate: int
    unit: int
    size: int


def bucket(rule: LimitRule, state: BucketState | None, cost: int, now_us: int) -> Verdict[BucketState]:
    """``debt + cost <= size``; a leaky bucket reads the debt as a queue and gives each request its turn."""
    rate, unit = bucket_rate(rule)
    size = capacity(rule)
    if rule.limit == 0:
        return denied_forever(0, 0)
    current = _drained(state, now_us) if state else BucketState(now_us, 0, rate, unit, size)
    is_queue = rule.algorithm == "leaky_bucket"
    is_owed = current.debt > 0 or current.at_us > now_us
    is_changed = is_owed and (current.rate, current.unit, current.size) != (rate, unit, size)
    if is_changed:
        current = BucketState(now_us, _carried_debt(current, now_us, unit, size, is_queue=is_queue), rate, unit, size)
    # A clock that stepped back neither mints nor destroys: the time at which the bucket is full stays where it was.
    behind_us = current.at_us - now_us
    fills_us = behind_us - (-current.debt // rate)
    room = size * unit - current.debt - rate * behind_us
    remaining = max(0, room // unit)
    if cost > size:
        return denied_forever(remaining, fills_us)
    # From the first attempt under a changed rule on the debt drains by that rule, whatever becomes of the attempt.
    kept = Stored(current, now_us + fills_us) if is_changed and cost > 0 else None
    need = cost * unit
    owed = current.debt + need
    if need > room:
        return denied(remaining, fills_us, behind_us - (size * unit - owed) // rate, kept)
    delay_us = fills_us if is_queue else 0
    if cost == 0:
        return peeked(remaining, fills_us, delay_us)
    refills_us = behind_us - (-owed // rate)
    return Verdict(
        Outcome(allowed=True, remaining=remaining, reset_us=fills_us, retry_us=0, delay_us=delay_us),
        Outcome(
            allowed=True,
            remaining=(room - need) // unit,
            reset_us=refills_us,
            retry_us=0,
            delay_us=delay_us,
        ),
        kept,
        Stored(BucketState(current.at_us, owed, rate, unit, size), now_us + refills_us),
    )


def _drained(state: BucketState, now_us: int) -> BucketState:
    """The state as of now, under the rule it was stored with."""
    if now_us <= state.at_us:
        return state
    return state._replace(at_us=now_us, debt=max(0, state.debt - state.rate * (now_us - state.at_us)))


def _carried_debt(state: BucketState, now_us: int, unit: int, size: int, *, is_queue: bool) -> int:
    """The debt under a new rule: a token bucket keeps its tokens, a queue keeps who waits, neither beyond its size.

    Where the unit differs too, at most a fraction of one unit is dropped, never won.
    """
    # A clock that stepped back makes a debt look larger than it can be.
    debt = min(state.debt + state.rate * (state.at_us - now_us), state.size * state.unit)
    if (state.unit, state.size) == (unit, size):
        return debt
    if is_queue:
        waiting = debt if state.unit == unit else -(-debt // state.unit) * unit
        return min(waiting, size * unit)
    tokens = state.size * state.unit - debt
    if state.unit != unit:
        tokens = tokens // state.unit * unit
    return size * unit - min(tokens, size * unit)
