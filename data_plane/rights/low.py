"""Counters of strict limits that are low, on their way from the nodes that see it to the agents that ask for more.

A list in the region's store; nodes append, agents take. What nobody can be asked for now is noted in a key of its own
beside it: the decision script (``lua/rights.lua``) then answers with the wait of the region's own rights, and says
nothing of low.
"""

import asyncio
import struct

import structlog
from redis.exceptions import RedisError

from data_plane.store.ports import Clock, RegionStore, StoreUnavailableError

log = structlog.get_logger()

LOW = b"tg:low"
REST = b"tg:rest:"
MAX_WAITING = 10_000
"""Counters that wait in the store, or in a node: what is low beyond these says so again at its next decision."""
SAY_AGAIN_US = 50_000
"""How soon a node says the same counter again."""
GATHER_S = 0.002
BLOCK_S = 0.5
_COST = struct.Struct("<q")


class LowOutbox:
    """A node's part: says what is low, a few times a second for each counter at most."""

    def __init__(self, store: RegionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[bytes, int] = {}
        self._said_us: dict[bytes, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: bytes, cost: int) -> None:
        """A counter has too little left for requests of ``cost``. Returns at once; may be called for every decision."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            self._waiting[key] = max(cost, waiting)
            return
        now_us = self._clock.now_us()
        # further ahead than any pause lasts: the clock was set back
        if 0 <= now_us - self._said_us.get(key, -SAY_AGAIN_US) < SAY_AGAIN_US or len(self._waiting) >= MAX_WAITING:
            return
        self._waiting[key] = cost
        self._wake.set()

    async def run(self) -> None:
        """Say it, for ever. What the store does not take now is said with a later decision."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            if len(self._said_us) + len(waiting) > MAX_WAITING:
                self._said_us.clear()
            self._said_us.update(dict.fromkeys(waiting, self._clock.now_us()))
            try:
                length = await self._store.execute(
                    "RPUSH", LOW, *(_COST.pack(cost) + key for key, cost in waiting.items())
                )
                if int(length) > MAX_WAITING:  # no agent takes them
                    await self._store.execute("LTRIM", LOW, -MAX_WAITING, -1)
            except (RedisError, OSError) as error:
                log.debug("low_not_said", reason=type(error).__name__)


class LowInbox:
    """An agent's part: takes what is low, each counter once for all agents, and notes what nobody can be asked for."""

    def __init__(self, store: RegionStore) -> None:
        self._store = store

    async def take(self) -> dict[bytes, int]:
        """What is low, with what requests cost; waits a while for it. Raises ``StoreUnavailableError``."""
        try:
            first = await self._store.execute("BLPOP", LOW, BLOCK_S)
            if first is None:
                return {}
            more = await self._store.execute("LPOP", LOW, MAX_WAITING)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
        found: dict[bytes, int] = {}
        for item in (first[1], *(more or ())):
            key, (cost,) = item[_COST.size :], _COST.unpack_from(item)
            found[key] = max(cost, found.get(key, 0))
        return found

    async def rest(self, key: bytes, for_us: int, *, hopeless: bool) -> None:
        """Nobody is asked for this one for so long; ``hopeless``: nobody has any. Raises ``StoreUnavailableError``."""
        await self._execute("SET", REST + key, b"1" if hopeless else b"0", "PX", max(1, for_us // 1_000))

    async def wake(self, key: bytes) -> None:
        """There is news: somebody can be asked. Raises ``StoreUnavailableError``."""
        await self._execute("DEL", REST + key)

    async def _execute(self, *command: bytes | str | int) -> None:
        try:
            await self._store.execute(*command)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
