"""A bound on wrong credentials by client address: in memory, per replica, never growing past its size."""

from collections import OrderedDict
from typing import NamedTuple

WINDOW_S = 60.0
MAX_ADDRESSES = 10_000


class _Failures(NamedTuple):
    since_s: float
    failures: int


class FailureThrottle:
    """Counts failures per address in windows of a minute; the address longest without a failure is forgotten first."""

    def __init__(self, max_failures: int) -> None:
        self._max = max_failures
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def blocked_for_s(self, address: str, now_s: float) -> float:
        """How long ``address`` must wait before it may try again; 0 when it may now."""
        seen = self._failures.get(address)
        if seen is None or seen.failures < self._max:
            return 0.0
        return max(0.0, seen.since_s + WINDOW_S - now_s)

    def failed(self, address: str, now_s: float) -> None:
        """Count one wrong credential."""
        seen = self._failures.pop(address, None)
        if seen is None or now_s >= seen.since_s + WINDOW_S:
            seen = _Failures(now_s, 0)
        self._failures[address] = _Failures(seen.since_s, seen.failures + 1)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
