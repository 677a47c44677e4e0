"""Which life of its store a region is in: every connection joins it before it carries a decision.

A server that started again, or another one in its place, may have forgotten what strict limits admitted. Its run id
says so, and the first node to connect begins a new life there (``lua/marker.lua``) before anything else is sent. So
does a node that is refused because there is no marker any more.
"""

from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisError

from data_plane.adapters.redis.client import Argument
from data_plane.adapters.redis.server import ServerFacts
from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.adapters.redis.topology import DIRTY_KEY
from data_plane.domain.regions.asking import FIRST_RTT_US
from data_plane.services.ports import StoreUnavailableError
from lua import marker_script, raise_script

log = structlog.get_logger()

MARKER = DIRTY_KEY + b"!m"
Ask = Callable[..., Awaitable[object]]
"""Sends one command over a connection that is being made, and reads its reply."""


class RedisLife:
    """Port ``StoreLife`` on a store of one server. ``fresh`` names a new life: a random number, 1 to 2^32 - 1."""

    def __init__(self, fresh: Callable[[], int]) -> None:
        self._fresh = fresh
        self._store: RedisCounterStore | None = None
        self._run_id = ""
        self.revision = 0
        """The revision of this node's shares; a connection that is made says it."""
        self.horizon_us = 3 * FIRST_RTT_US
        self.incarnation = 0
        """As of the last connection; 0 before the first, and where the store may not be joined."""
        self.new_lives = 0
        """Lives that began while this node watched, its first connection not counted."""

    async def join(self, ask: Ask, facts: ServerFacts) -> None:
        """Join the server that a connection has just been made to."""
        if not facts.run_id:
            log.warning("strict_refused", reason="the store's login may not use INFO: which life this is is unknown")
            self.incarnation = 0
            return
        reply = await ask(
            "EVAL", marker_script(), 1, MARKER, facts.run_id, facts.maxmemory_policy or "noeviction", self.revision,
            self._fresh(), self.horizon_us,
        )  # fmt: skip
        if not isinstance(reply, list):
            log.warning("strict_refused", reason=str(reply))
            self.incarnation = 0
            return
        incarnation = int(reply[0])
        if self.incarnation not in {0, incarnation}:
            self.new_lives += 1
            log.warning("store_lost", incarnation=incarnation, run_id=facts.run_id)
        self._run_id, self.incarnation = facts.run_id, incarnation

    async def rejoin(self) -> None:
        """Begin a new life where the marker is gone and connections go on (``FLUSHALL``)."""
        if self._store is None:
            return
        try:
            if await self._store.execute("GET", MARKER) is None:
                [info] = await self._store.info()
                facts = ServerFacts(run_id=info["run_id"], maxmemory_policy=info.get("maxmemory_policy", ""))
                await self.join(self._store.execute, facts)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error

    def watch(self, store: RedisCounterStore) -> None:
        """The store whose connections join by this; it needs them to be made, so it comes later."""
        self._store = store

    async def confirm(self) -> int | None:
        """Have the marker know this node's revision and horizon; the store's clock, or ``None`` in another life."""
        if self._store is None or not self._run_id:
            return None
        arguments: list[Argument] = [self._run_id, self.revision, self.horizon_us]
        try:
            reply = await self._store.call_script(raise_script(), [MARKER], arguments)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
        return None if reply is None else int(reply)
