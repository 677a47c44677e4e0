"""The epoch marker of a store of one server: every connection joins it before it carries a decision.

A server that started again, or another one in its place, may have forgotten what strict limits admitted. Its run id
says so, and whoever connects first makes the epoch pending (``lua/epoch_marker.lua``) before anything else is sent. An agent
does the same where the marker is gone while connections go on (``FLUSHALL``).
"""

from collections.abc import Awaitable, Callable

import msgspec
import structlog
from redis.exceptions import RedisError

from data_plane.rights.epochs import Epoch
from data_plane.store.ports import RegionStore, StoreUnavailableError
from data_plane.store.redis.client import Argument
from data_plane.store.redis.server import ServerFacts
from data_plane.store.redis.topology import MARKER
from data_plane.store.scripts import epoch_marker_script, raise_epoch_marker_script
from data_plane.store.strict_packing import decode_marker
from tidegate.contract.decoding import UNREADABLE

log = structlog.get_logger()

STATE = b"tg:region:state"
STATE_MS = 3_000
"""An agent that vouches says so twice a second; one that is gone is believed for so long."""
Ask = Callable[..., Awaitable[object]]
"""Sends one command over a connection that is being made, and reads its reply."""


class Vouch(msgspec.Struct, frozen=True):
    """The region's state in the store: the agent that vouches for the shares, and in which epoch."""

    agent: str
    incarnation: int


_vouch = msgspec.json.Decoder(Vouch)


class RedisEpochs:
    """Port ``EpochStore``, and the ``Join`` of connections. ``fresh`` names an epoch: a random number below 2^32."""

    def __init__(self, name: str, fresh: Callable[[], int]) -> None:
        self._name = name
        self._fresh = fresh
        self._store: RegionStore | None = None
        self._run_id = ""
        self.incarnation = 0
        """As of the last connection; 0 before the first, and where the store may not be joined."""
        self.new_epochs = 0
        """Epochs that began while this process watched, its first connection not counted."""

    def watch(self, store: RegionStore) -> None:
        """The store whose connections join by this; it needs them to be made, so it comes later."""
        self._store = store

    async def join_connection(self, ask: Ask, facts: ServerFacts) -> None:
        """Join the server that a connection has just been made to."""
        if not facts.run_id:
            log.warning("strict_refused", reason="the store's login may not use INFO: its epoch is unknown")
            self.incarnation = 0
            return
        policy = facts.maxmemory_policy or "noeviction"
        reply = await ask("EVAL", epoch_marker_script(), 1, MARKER, facts.run_id, policy, self._fresh())
        if not isinstance(reply, list):
            log.warning("strict_refused", reason=str(reply))
            self.incarnation = 0
            return
        incarnation = int(reply[0])
        if self.incarnation not in {0, incarnation}:
            self.new_epochs += 1
            log.warning("store_lost", incarnation=incarnation, run_id=facts.run_id)
        self._run_id, self.incarnation = facts.run_id, incarnation

    async def join(self) -> None:
        """The same over connections that are there."""
        if self._store is None:
            return
        try:
            [info] = await self._store.info()
            facts = ServerFacts(run_id=info["run_id"], maxmemory_policy=info.get("maxmemory_policy", ""))
            await self.join_connection(self._store.execute, facts)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error

    async def renew(self, revision: int, horizon_us: int, proven_for: int) -> Epoch | None:
        """Raise the marker, begin what is proven, vouch: ``lua/raise_epoch_marker.lua``."""
        if self._store is None or not self._run_id:
            return None
        vouch = msgspec.json.encode(Vouch(self._name, proven_for))
        arguments: list[Argument] = [self._run_id, revision, horizon_us, proven_for, vouch, STATE_MS]
        try:
            reply = await self._store.call_script(raise_epoch_marker_script(), [MARKER, STATE], arguments)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
        if reply is None:
            return None
        incarnation, held, horizon, now_us, pending, body = reply
        vouched = body is not None and _read(body).incarnation == int(incarnation)
        return Epoch(int(incarnation), int(held), int(horizon), int(now_us), bool(pending), vouched)

    async def withdraw(self) -> None:
        """Vouch no longer: who starts after this agent has ended is to ask for itself. Others vouch again at once."""
        if self._store is not None:
            try:
                await self._store.execute("DEL", STATE)
            except (RedisError, OSError) as error:
                raise StoreUnavailableError(type(error).__name__) from error

    async def vouched(self) -> Vouch | None:
        """Who vouches for the shares in the epoch that the store is in, if anybody does."""
        if self._store is None or not self._run_id:
            return None
        try:
            raw, body = await self._store.execute("MGET", MARKER, STATE)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
        if raw is None or body is None:
            return None
        marker, found = decode_marker(raw), _read(body)
        return found if (marker.incarnation, marker.run_id) == (found.incarnation, self._run_id) else None


def _read(body: bytes) -> Vouch:
    try:
        return _vouch.decode(body)
    except UNREADABLE:  # of another version: as if nobody had said anything
        return Vouch("", 0)
