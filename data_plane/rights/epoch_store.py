"""The epoch marker of a store on one server: every connection joins the store before it carries a decision.

A restarted or replaced server may have lost what strict limits admitted. It has another run id, so the process that
connects first makes the epoch pending (``lua/epoch_marker.lua``) before it sends anything else. An agent does the same
when the marker is gone while connections persist (``FLUSHALL``).
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
import structlog

from data_plane.rights.epochs import Epoch
from data_plane.store.ports import Argument, RegionStore
from data_plane.store.redis.server import ServerFacts
from data_plane.store.redis.topology import MARKER
from data_plane.store.scripts import epoch_marker_script, raise_epoch_marker_script
from data_plane.store.strict_packing import decode_marker
from tidegate.contract.decoding import UNREADABLE

log = structlog.get_logger()

STATE = b"tg:region:state"
STATE_MS = 3_000
"""How long a vouch lasts; agents renew it twice a second."""
ANNOUNCED = b"tg:region:revision"
ANNOUNCED_MS = 3_000
Execute = Callable[..., Awaitable[object]]
"""Sends one command over a new connection, and returns its reply."""


class Vouch(msgspec.Struct, frozen=True):
    """An agent's word that its shares are proven for an epoch; stored as the region's state."""

    agent: str
    incarnation: int


_vouch = msgspec.json.Decoder(Vouch)


class Notice(NamedTuple):
    """What a node reads of shares: whether an agent vouches for the store's epoch, and the revision that it needs.

    The store refuses older revisions, or will soon, as an agent that starts has announced.
    """

    vouched: bool
    revision: int


class EpochJoin:
    """Implements ``Join``: joins the epoch of the store at every new connection.

    ``new_incarnation`` returns a name for an epoch: a random number from 1 to 2^32 - 1.
    """

    def __init__(self, new_incarnation: Callable[[], int]) -> None:
        self._new_incarnation = new_incarnation
        self.run_id = ""
        """The server's run id at the last connection; empty before the first."""
        self.incarnation = 0
        """The epoch at the last connection; 0 before the first, and if the store refuses to be joined."""
        self.new_epochs = 0
        """Epochs that began after this process's first connection."""

    async def __call__(self, execute: Execute, facts: ServerFacts) -> None:
        """Join the server of a new connection."""
        if not facts.run_id:
            log.warning("strict_refused", reason="the store's login may not use INFO: its epoch is unknown")
            self.incarnation = 0
            return
        policy = facts.maxmemory_policy or "noeviction"
        reply = await execute("EVAL", epoch_marker_script(), 1, MARKER, facts.run_id, policy, self._new_incarnation())
        if not isinstance(reply, list):
            log.warning("strict_refused", reason=str(reply))
            self.incarnation = 0
            return
        incarnation = int(reply[0])
        if self.incarnation not in {0, incarnation}:
            self.new_epochs += 1
            log.warning("store_lost", incarnation=incarnation, run_id=facts.run_id)
        self.run_id, self.incarnation = facts.run_id, incarnation


class RedisEpochs:
    """Implements ``EpochStore`` for the agent or node ``name``. Methods raise ``StoreUnavailableError``."""

    def __init__(self, name: str, store: RegionStore, joined: EpochJoin) -> None:
        self._name = name
        self._store = store
        self._joined = joined

    async def join(self) -> None:
        """Join over the connections that exist."""
        [info] = await self._store.info()
        facts = ServerFacts(run_id=info["run_id"], maxmemory_policy=info.get("maxmemory_policy", ""))
        await self._joined(self._store.execute, facts)

    async def renew(self, revision: int, horizon_us: int, proven_for: int) -> Epoch | None:
        """Raise the marker, begin a pending epoch that is proven, and vouch (``lua/epoch_marker.lua``)."""
        if not self._joined.run_id:
            return None
        vouch = msgspec.json.encode(Vouch(self._name, proven_for))
        arguments: list[Argument] = [self._joined.run_id, revision, horizon_us, proven_for, vouch, STATE_MS]
        reply = await self._store.call_script(raise_epoch_marker_script(), [MARKER, STATE], arguments)
        if reply is None:
            return None
        incarnation, revision_held, horizon, now_us, pending, body = reply
        vouched = body is not None and read_vouch(body).incarnation == int(incarnation)
        return Epoch(int(incarnation), int(revision_held), int(horizon), int(now_us), bool(pending), vouched)

    async def withdraw(self) -> None:
        """Take the vouch back before this agent ends; other agents vouch again at once."""
        await self._store.execute("DEL", STATE)

    async def announce(self, revision: int) -> None:
        """Tell nodes that the store will soon refuse revisions older than this one."""
        await self._store.execute("SET", ANNOUNCED, revision, "PX", ANNOUNCED_MS)

    async def notice(self) -> Notice:
        """Read the notice for nodes."""
        if not self._joined.run_id:
            return Notice(False, 0)
        raw, body, announced = await self._store.execute("MGET", MARKER, STATE, ANNOUNCED)
        if raw is None:
            return Notice(False, 0)
        marker = decode_marker(raw)
        epoch = (marker.incarnation, marker.run_id)
        vouched = body is not None and epoch == (read_vouch(body).incarnation, self._joined.run_id)
        return Notice(vouched, max(marker.revision, int(announced or 0)))


def read_vouch(body: bytes) -> Vouch:
    """What an agent left in the store; no vouch if it cannot be read."""
    try:
        return _vouch.decode(body)
    except UNREADABLE:  # written by another version: counts as no vouch
        return Vouch("", 0)
