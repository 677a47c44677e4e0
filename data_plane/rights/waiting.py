"""Counters of ``strict`` limits that have too little left: which wait to be asked for, which are left in peace.

Times are microseconds of the node's clock.
"""

import asyncio
from typing import NamedTuple

MAX_LOW = 10_000
"""Counters that wait for their turn to be asked for; what is low beyond these says so again at its next decision."""
MAX_RESTING = 100_000
REST_US = 100_000
"""How long a counter is left in peace when nobody can be asked."""


class _Rest(NamedTuple):
    """Nobody can be asked, as far as is known until ``ends_us``; from ``look_us`` on there may be news."""

    look_us: int
    ends_us: int


class LowCounters:
    """``told`` is set when one waits."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self._waiting: dict[bytes, int] = {}
        self._resting: dict[bytes, _Rest] = {}

    def add(self, key: bytes, cost: int, now_us: int) -> None:
        """There is little left for requests of ``cost``. Returns at once; may be called for every decision."""
        if key in self._waiting:
            self._waiting[key] = max(cost, self._waiting[key])
            return
        rest = self._resting.get(key)
        # Further ahead than any rest lasts: the clock was set back.
        rests = rest is not None and now_us < rest.look_us <= now_us + REST_US
        if len(self._waiting) < MAX_LOW and not rests:
            self._waiting[key] = cost
            self.told.set()

    def take(self) -> dict[bytes, int]:
        """All that wait, with what requests cost; from now on they do not wait any more."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    def rest(self, key: bytes, ends_us: int, now_us: int) -> None:
        """Nobody can be asked about this one until ``ends_us``, unless there is news."""
        if len(self._resting) >= MAX_RESTING:
            self._resting.clear()
        self._resting[key] = _Rest(now_us + REST_US, ends_us)

    def wake(self, key: bytes) -> bool:
        """There is news; whether it rested."""
        return self._resting.pop(key, None) is not None

    def forget(self, now_us: int) -> None:
        """Drop what rests no more: call it now and then."""
        self._resting = {key: rest for key, rest in self._resting.items() if rest.ends_us > now_us}
