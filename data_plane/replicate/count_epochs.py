"""Epochs of the counts in a region's store: a store that lost counts or came back with old ones begins a new epoch."""

import hmac
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from data_plane.store.ports import Argument, RegionStore, Reply, StoreUnavailableError
from data_plane.store.redis.slots import parts_by_slot
from data_plane.store.scripts import end_epoch_script
from data_plane.store.strict_packing import decode_marker

log = structlog.get_logger()

EPOCH = b"tg:incarnation"
MARKER_OF_EPOCH = b"tg:incarnation:of"
"""The incarnation in the epoch marker (``epoch_store``) that this epoch belongs to; a difference shows a lost store.

An epoch that was named without a marker belongs to none, and is over once there is one: the store may be a copy.
"""
RECEIVED = b"tg:heard"
"""The hash of ``lua/receive.lua``: what was received from peers, and which epoch of theirs was sent everything."""
PEER_COUNTS_SUFFIX = b"!"
"""A counter's peer counts are stored at its key with this suffix: the same hash tag, the same slot."""
RESERVES_SUFFIX = b"?"

SCANNED_A_CALL = 250
ENDED_A_CALL = 25


class _Names(NamedTuple):
    """The epoch's name, the incarnation that it belongs to, and the marker's; on a Cluster the name alone."""

    name: bytes
    incarnation: bytes | None
    marker: bytes | None

    @property
    def is_over(self) -> bool:
        return self.marker is not None and self.incarnation != self.marker


class CountEpochs:
    """Names, begins and verifies epochs. Every method that asks the store raises ``StoreUnavailableError``.

    ``secret`` is the region's; it proves that a name is of an epoch of this region's store.
    """

    def __init__(self, store: RegionStore, secret: bytes, token_hex: Callable[[int], str]) -> None:
        self._store = store
        self._secret = secret
        self._token_hex = token_hex
        self._marker = store.dirty_key_of_slot(0) + b"!m" if store.settings.shape != "cluster" else b""

    @property
    def reading(self) -> Sequence[Argument]:
        """The command whose reply ``current`` takes, where it is sent with others."""
        if self._store.settings.shape == "cluster":
            return ("GET", EPOCH)
        return ("MGET", EPOCH, MARKER_OF_EPOCH, self._marker)

    async def current(
        self, region: str, regions: int, is_shared: Callable[[bytes], bool], read: Reply | None = None
    ) -> str:
        """The name of the current epoch; begins a new one if the marker shows that the store came back.

        The own counts of the ended epoch are then kept among those of peers.
        """
        epoch = await self._read(read)
        if epoch.is_over and epoch.marker is not None:
            log.warning("store_came_back", epoch=epoch.name.decode())
            return (await self._begin(region, epoch.name, regions, epoch.marker, is_shared)).decode()
        return epoch.name.decode()

    async def name(self) -> str:
        """The name of the current epoch, for a process that only receives; unavailable until a pending one begins."""
        epoch = await self._read()
        if epoch.is_over:
            raise StoreUnavailableError("NewEpoch")
        return epoch.name.decode()

    def is_own(self, name: str) -> bool:
        """Whether a store of this region made that name; other regions cannot make one."""
        random, _, proof = name.partition("-")
        return hmac.compare_digest(proof.encode(), self._proof_of(random).encode())

    def new_name(self) -> str:
        """A name for an epoch of this region's store."""
        random = self._token_hex(8)
        return f"{random}-{self._proof_of(random)}"

    async def sent_everything(self, peer: str, slices: Sequence[int]) -> str | None:
        """The epoch of a peer's store to which agents of this region have sent everything of all these slices."""
        known = set(await self._store.execute("HMGET", RECEIVED, *_sent_fields(peer, slices)))
        return known.pop().decode() if len(known) == 1 and None not in known else None

    async def note_sent_everything(self, peer: str, slices: Sequence[int], epoch: str | None) -> None:
        """Note which epoch of the peer's store was sent everything of these slices; ``None``: it needs that again."""
        if epoch is None:
            # Agents of earlier versions read one field for all slices.
            await self._store.execute("HDEL", RECEIVED, f"={peer}", *_sent_fields(peer, slices))
        elif slices:
            pairs = [part for field in _sent_fields(peer, slices) for part in (field, epoch)]
            await self._store.execute("HSET", RECEIVED, *pairs)

    def _proof_of(self, random: str) -> str:
        return hmac.digest(self._secret, b"tidegate store epoch\0" + random.encode(), "sha256")[:8].hex()

    async def _read(self, reply: Reply | None = None) -> _Names:
        reply = reply or await self._store.execute(*self.reading)
        name, incarnation, raw = reply if isinstance(reply, list) else (reply, None, None)
        marker = None if raw is None else b"%d" % decode_marker(raw).incarnation
        if name is None:
            if marker is not None:
                # Before there is a name: a copy of the store never has the one without the other.
                await self._store.execute("SET", MARKER_OF_EPOCH, marker)
                incarnation = marker
            await self._store.execute("SET", EPOCH, self.new_name(), "NX")
            name = await self._store.execute("GET", EPOCH)
        return _Names(name or b"", incarnation, marker)

    async def _begin(
        self, region: str, ended: bytes, regions: int, marker: bytes, is_shared: Callable[[bytes], bool]
    ) -> bytes:
        script, names = end_epoch_script(), [EPOCH, MARKER_OF_EPOCH, RECEIVED]
        arguments: list[Argument] = [region, ended, regions]
        cursor = ""
        while True:
            cursor, keys = await self._store.scan(cursor, "{*", SCANNED_A_CALL)
            counters = [key for key in keys if is_counter(key) and is_shared(key)]
            for _, part in parts_by_slot(self._store, counters, lambda key: key, ENDED_A_CALL):
                pairs = [name for key in part for name in (key, key + PEER_COUNTS_SUFFIX)]
                await self._store.call_script(script, [*names, *pairs], [*arguments, "", ""])
            if not cursor:
                break
        await self._store.call_script(script, names, [*arguments, self.new_name(), marker])
        return await self._store.execute("GET", EPOCH) or b""


def _sent_fields(peer: str, slices: Sequence[int]) -> Sequence[str]:
    return [f"={peer}/{slice}" for slice in slices]


def is_counter(key: bytes) -> bool:
    """Whether a key is a counter's own, not that of its peers' counts or reserves."""
    return key[-1:] not in {PEER_COUNTS_SUFFIX, RESERVES_SUFFIX}
