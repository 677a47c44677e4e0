"""Counters of strict limits that are low, from the nodes that notice to the agents that ask for more rights.

Nodes append to a list in the region's store and agents take from it. A key beside the list notes that no peer can be
asked about a counter now; the decision script (``lua/rights.lua``) then denies with the wait of the region's own rights
and does not report the counter as low.
"""

import asyncio
import struct
from typing import NamedTuple

import structlog
from redis.exceptions import RedisError

from data_plane.store.ports import Clock, RegionStore
from data_plane.store.redis.client import BLOCK_S, store_errors

log = structlog.get_logger()

LOW = b"tg:low"
BACK_OFF = b"tg:rest:"
MAX_WAITING = 10_000
"""Low counters that may wait in the store, a node or an agent; those beyond are reported by their next decision."""
MAX_BACKING_OFF = 100_000
REPORT_AGAIN_US = 50_000
"""A node reports the same counter at most this often."""
BACK_OFF_US = 100_000
"""For how long an agent ignores a counter for which no peer can be asked."""
GATHER_S = 0.002
_COST = struct.Struct("<q")


class LowOutbox:
    """A node's side: reports low counters, each at most a few times a second."""

    def __init__(self, store: RegionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[bytes, int] = {}
        self._reported_us: dict[bytes, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: bytes, cost: int) -> None:
        """Report a counter that is low for requests of ``cost``. Returns at once; may be called at every decision."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            self._waiting[key] = max(cost, waiting)
            return
        elapsed_us = self._clock.now_us() - self._reported_us.get(key, -REPORT_AGAIN_US)
        # below 0 the clock was set back
        if 0 <= elapsed_us < REPORT_AGAIN_US or len(self._waiting) >= MAX_WAITING:
            return
        self._waiting[key] = cost
        self._wake.set()

    async def run(self) -> None:
        """Send reports for ever. A report that the store does not take is repeated by a later decision."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            if len(self._reported_us) + len(waiting) > MAX_WAITING:
                self._reported_us.clear()
            self._reported_us.update(dict.fromkeys(waiting, self._clock.now_us()))
            try:
                length = await self._store.execute(
                    "RPUSH", LOW, *(_COST.pack(cost) + key for key, cost in waiting.items())
                )
                if int(length) > MAX_WAITING:  # no agent takes them
                    await self._store.execute("LTRIM", LOW, -MAX_WAITING, -1)
            except (RedisError, OSError) as error:
                log.debug("low_not_reported", reason=type(error).__name__)


class LowInbox:
    """The agents' side: hands each low counter to one agent, and notes counters for which no peer can be asked.

    Every method raises ``StoreUnavailableError``.
    """

    def __init__(self, store: RegionStore) -> None:
        self._store = store

    async def take(self) -> dict[bytes, int]:
        """Take low counters, each with the cost of a request; waits a while for the first."""
        with store_errors():
            first = await self._store.execute("BLPOP", LOW, BLOCK_S)
            if first is None:
                return {}
            more = await self._store.execute("LPOP", LOW, MAX_WAITING)
        found: dict[bytes, int] = {}
        for item in (first[1], *(more or ())):
            key, (cost,) = item[_COST.size :], _COST.unpack_from(item)
            found[key] = max(cost, found.get(key, 0))
        return found

    async def back_off(self, key: bytes, for_us: int, *, hopeless: bool) -> None:
        """Note that no peer is asked about a counter for that time; ``hopeless``: no peer has any rights."""
        with store_errors():
            await self._store.execute("SET", BACK_OFF + key, b"1" if hopeless else b"0", "PX", max(1, for_us // 1_000))

    async def end_back_off(self, key: bytes) -> None:
        """Note that a peer can be asked again."""
        with store_errors():
            await self._store.execute("DEL", BACK_OFF + key)


class _BackOff(NamedTuple):
    """No peer can be asked until ``ends_us``, as far as known; from ``look_us`` on that may have changed."""

    look_us: int
    ends_us: int


class LowCounters:
    """An agent's own low counters. ``added`` is set when one waits. Times are microseconds of the agent's clock."""

    def __init__(self) -> None:
        self.added = asyncio.Event()
        self._waiting: dict[bytes, int] = {}
        self.backing_off: dict[bytes, _BackOff] = {}

    def add(self, key: bytes, cost: int, now_us: int) -> None:
        """Note a counter that is low for requests of ``cost``. Returns at once; may be called at every decision."""
        if key in self._waiting:
            self._waiting[key] = max(cost, self._waiting[key])
            return
        pause = self.backing_off.get(key)
        # a look further ahead than any back-off shows that the clock was set back
        pauses = pause is not None and now_us < pause.look_us <= now_us + BACK_OFF_US
        if len(self._waiting) < MAX_WAITING and not pauses:
            self._waiting[key] = cost
            self.added.set()

    def take(self) -> dict[bytes, int]:
        """Take all that wait, each with the cost of a request."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    def back_off(self, key: bytes, ends_us: int, now_us: int) -> None:
        """Ignore a counter until ``ends_us``, or until ``end_back_off``."""
        if len(self.backing_off) >= MAX_BACKING_OFF:
            self.backing_off.clear()
        self.backing_off[key] = _BackOff(now_us + BACK_OFF_US, ends_us)

    def end_back_off(self, key: bytes) -> bool:
        """End a counter's back-off. Returns whether there was one."""
        return self.backing_off.pop(key, None) is not None

    def forget(self, now_us: int) -> None:
        """Drop back-offs that have ended. Call it now and then."""
        self.backing_off = {key: pause for key, pause in self.backing_off.items() if pause.ends_us > now_us}
