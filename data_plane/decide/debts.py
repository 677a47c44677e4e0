"""What the store is owed for decisions without it, as the node's own counters have it."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.store.local_counters import LocalCounters

MAX_DEBTS = 100_000


class LocalLimit(NamedTuple):
    """A limit that counts here, at its place in the limit set, with the parameters by which this node enforces it."""

    place: int
    params: bytes
    resolved: ResolvedLimit


class Debt(NamedTuple):
    """Units that one counter of the store is owed: admitted here while it was away, and still counting."""

    key: bytes
    params: bytes
    """The store's parameters of the limit when it was counted last."""
    cost: int
    state: bytes
    """The local counter's state up to which the debt is counted."""


class Debts:
    """Units admitted here and not charged yet: what a counter lacks now, less what it lacks in its settled state."""

    def __init__(self, counters: LocalCounters) -> None:
        self._counters = counters
        self._owed: OrderedDict[bytes, tuple[LocalLimit, int]] = OrderedDict()
        """Counters that admitted something here, as they were counted last, and the most that they can owe. A bucket
        that was raised keeps its tokens, so that what is missing in it tells more than was taken."""
        self._paid: OrderedDict[bytes, bytes] = OrderedDict()
        """States that are settled. They still count here while their windows run: a store that comes and goes must not
        give every client a fresh limit each time."""

    def forget_evicted(self, keys: Sequence[bytes]) -> None:
        """Call before these count again: one that was evicted here begins anew, with nothing settled."""
        if self._paid:
            for key in keys:
                if self._counters.state(key) is None:
                    self._paid.pop(key, None)

    def add(self, keys: Sequence[bytes], limits: Sequence[LocalLimit], cost: int) -> None:
        """These limits admitted a check here; ``keys`` are the counters of its whole limit set."""
        owed = self._owed
        for limit in limits:
            key = keys[limit.place]
            before = owed.pop(key, None)
            owed[key] = limit, cost if before is None else before[1] + cost
        while len(owed) > MAX_DEBTS:
            owed.popitem(last=False)

    def owing(self) -> list[bytes]:
        """Counters with debts."""
        return list(self._owed)

    def of(self, keys: Sequence[bytes], now_us: int) -> list[Debt]:
        """The debts of these counters that still count; a hundred counters take a millisecond."""
        most = [
            Debt(key, limit.resolved.params, units, state)
            for key, (limit, units) in ((key, self._owed[key]) for key in keys if key in self._owed)
            if (state := self._counters.state(key)) is not None
        ]
        debts = self.still_owed(most, now_us)
        for key in set(keys).difference(debt.key for debt in debts):
            self._owed.pop(key, None)
        return debts

    def still_owed(self, debts: Sequence[Debt], now_us: int) -> list[Debt]:
        """The same debts, later: units that no longer count are no longer owed."""
        debts = [debt for debt in debts if debt.key in self._owed]
        params = [self._owed[debt.key][0].params for debt in debts]
        before = zip(params, (self._paid.get(debt.key) for debt in debts), strict=True)
        after = zip(params, (debt.state for debt in debts), strict=True)
        left = self._counters.remaining([*before, *after], now_us)
        costs = (had - has for had, has in zip(left, left[len(debts) :], strict=False))
        again = (debt._replace(cost=min(debt.cost, cost)) for debt, cost in zip(debts, costs, strict=True))
        return [debt for debt in again if debt.cost > 0]

    def paid(self, debts: Sequence[Debt]) -> None:
        """These debts were charged to the store."""
        for key, _, cost, state in debts:
            self._paid[key] = state
            self._paid.move_to_end(key)
            if len(self._paid) > MAX_DEBTS:
                self._paid.popitem(last=False)
            owed = self._owed.pop(key, None)
            if owed is not None and self._counters.state(key) != state:
                self._owed[key] = owed[0], owed[1] - cost
