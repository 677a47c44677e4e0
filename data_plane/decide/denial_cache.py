"""The denial cache: repeats a denial without asking the store, for as long as it certainly holds.

A denial of a request holds for the same request until its ``retry_us`` has passed: other requests can only consume.
An entry lives for a second at most, so that the figures of the answer are never older. Limits whose denials may end
early (counts shared between regions, rights, units given back on a Cluster) are not cached. Units that a lease or a
reservation gives back are noticed when the entry ends.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from data_plane.config.limit_set import LimitSet
from data_plane.decide.pending_check import Verdict
from data_plane.store.packing import NEVER, Outcome

LONGEST_US = 1_000_000


class _Denial(NamedTuple):
    limit_set: LimitSet
    cost: int
    asked_us: int
    until_us: int
    answered_us: int
    outcomes: list[Outcome]


class DenialCache:
    """At most ``max_entries`` denials; the oldest give way. Times are the node's clock in microseconds."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self.denials: OrderedDict[tuple[bytes, ...], _Denial] = OrderedDict()
        """By all counters of the check: the answer reports each, also those that did not deny."""

    def __len__(self) -> int:
        return len(self.denials)

    def recall(self, limit_set: LimitSet, keys: Sequence[bytes], cost: int, now_us: int) -> list[Outcome] | None:
        """The outcomes of a denial that still holds for the same counters, limits and cost, if there is one."""
        counters = tuple(keys)
        denial = self.denials.get(counters)
        if denial is None or denial.limit_set is not limit_set or denial.cost != cost:
            return None
        if denial.asked_us <= now_us < denial.until_us:
            passed_us = max(0, now_us - denial.answered_us)
            return [_later(outcome, passed_us) for outcome in denial.outcomes]
        del self.denials[counters]
        return None

    def remember(self, verdict: Verdict, keys: Sequence[bytes], asked_us: int, answered_us: int) -> None:
        """Keep a denial by the store. ``asked_us`` is from before the store decided, so the entry never ends late;
        ``answered_us`` is from after that, so a client is never told too short a wait.
        """
        if verdict.shown is None or verdict.shown not in verdict.check.limit_set.lasting:
            return
        retry_us = verdict.outcomes[verdict.shown].retry_us
        if retry_us == NEVER:
            return
        until_us = asked_us + min(retry_us, LONGEST_US)
        counters, check = tuple(keys), verdict.check
        self.denials[counters] = _Denial(check.limit_set, check.cost, asked_us, until_us, answered_us, verdict.outcomes)
        self.denials.move_to_end(counters)
        if len(self.denials) > self._max_entries:
            self.denials.popitem(last=False)


def _later(outcome: Outcome, passed_us: int) -> Outcome:
    retry_us = outcome.retry_us if outcome.retry_us <= 0 else max(1, outcome.retry_us - passed_us)
    reset_us = max(0, outcome.reset_us - passed_us)
    return Outcome(outcome.allowed, outcome.remaining, reset_us, retry_us, outcome.delay_us)
