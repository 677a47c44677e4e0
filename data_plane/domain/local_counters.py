"""Counters in the node's own memory: the limiter of last resort, when the region's store is gone."""

from collections import OrderedDict
from collections.abc import Sequence

from contract.limits import LimitRule
from data_plane.domain.algorithms import State, Stored, decide
from data_plane.domain.outcome import Outcome


class LocalCounters:
    """At most ``max_keys`` counters; the least recently used give way. Not thread-safe: one event loop owns it."""

    def __init__(self, max_keys: int) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be at least 1, not {max_keys}")
        self._max_keys = max_keys
        self._counters: OrderedDict[bytes, Stored[State]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counters)

    def check(self, keys: Sequence[bytes], rules: Sequence[LimitRule], cost: int, now_us: int) -> list[Outcome]:
        """Decide ``cost`` units against ``rules``, all or nothing; ``keys[i]`` is the counter of ``rules[i]``."""
        outcomes, stored = decide(rules, [self.state(key, now_us) for key in keys], cost, now_us)
        for key, kept in zip(keys, stored, strict=True):
            if kept is not None:
                self._counters[key] = kept
        while len(self._counters) > self._max_keys:
            self._counters.popitem(last=False)
        return outcomes

    def state(self, key: bytes, now_us: int) -> State | None:
        """What is known of a counter; the same object until it counts again."""
        found = self._counters.get(key)
        if found is None:
            return None
        if found.forget_us <= now_us:
            del self._counters[key]
            return None
        self._counters.move_to_end(key)
        return found.state

    def peek(self, key: bytes) -> State | None:
        """The same, as it was counted last."""
        found = self._counters.get(key)
        return None if found is None else found.state
