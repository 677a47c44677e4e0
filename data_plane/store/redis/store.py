"""``RedisCounterStore``: the port ``CounterStore`` over Redis or Valkey of any shape."""

import asyncio
import random
from secrets import token_bytes

from redis.crc import key_slot

from data_plane.store.redis.circuit import Backoff
from data_plane.store.redis.client import SideClient
from data_plane.store.redis.cluster import Cluster
from data_plane.store.redis.connect import Address, Connector, Join, address_of
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.shard import Shard
from data_plane.store.redis.side_link import SideLink
from data_plane.store.redis.split import GiveBacks
from data_plane.store.redis.status import StoreStats, StoreStatus
from data_plane.store.redis.topology import (
    DIRTY_KEY,
    SingleServer,
    Topology,
    address_in_url,
    make_sentinel,
    master_of,
)
from data_plane.store.scripts import decide_script, give_back_script


class RedisCounterStore:
    """The region's counters. Make it on the event loop, ``await start()``, and ``close()`` at the end.

    What asks beside the hot pipeline raises ``StoreUnavailableError``.
    """

    def __init__(self, settings: RedisSettings, join: Join | None = None) -> None:
        self.settings = settings
        self.stats = StoreStats()
        self._script = decide_script()
        self._sentinel = make_sentinel(settings) if settings.shape == "sentinel" else None
        connector = None if settings.shape == "cluster" else self._connector(join)
        link = None if connector is None else SideLink(connector, settings.connect_timeout_ms / 1000)
        side = self._side = SideClient(settings, self._sentinel, link)
        self.execute, self.execute_all, self.call_script = side.execute, side.execute_all, side.call_script
        self.scan, self.info = side.scan, side.info
        self._give_backs = GiveBacks(
            give_back_script(), self.call_script, self.dirty_key_beside, self.stats, token_bytes
        )
        self.topology = self._topology(connector)
        self.submit = self.topology.submit
        """Decides a check as soon as possible. It is answered later, never from within this call."""
        self.submit_all = self.topology.submit_all
        """The same for many at once, in order."""

    async def start(self) -> None:
        """Connect and check the server. Raises ``StoreMisconfiguredError``; an absent server is retried behind."""
        await self.topology.start()

    async def close(self, timeout_s: float = 1.0) -> None:
        """Refuse what is new, finish what is in flight within ``timeout_s``, disconnect."""
        await self.topology.close(timeout_s)
        await self._give_backs.finish()
        await self._side.close()
        if self._sentinel is not None:
            await asyncio.gather(*(sentinel.aclose() for sentinel in self._sentinel.sentinels))

    async def until_given_back(self) -> None:
        """Wait until everything that denied decisions are to give back has been given back, or has failed."""
        await self._give_backs.finish()

    def status(self) -> StoreStatus:
        """Connections, circuits and what the servers said of themselves when they were connected."""
        shards = self.topology.statuses()
        usable = bool(shards) and all(shard.connected and shard.circuit == "closed" for shard in shards)
        return StoreStatus(shape=self.settings.shape, usable=usable, shards=shards)

    def take_touched(self) -> set[int]:
        """The slots of a Cluster whose dirty sets this node may have marked since this was last asked."""
        return self.topology.take_touched()

    def _connector(self, join: Join | None) -> Connector:
        if self._sentinel is None:
            return Connector(self.settings, self._script, address_in_url, master_only=False, join=join)
        resolve = master_of(self._sentinel, self.settings.master_name)
        return Connector(self.settings, self._script, resolve, master_only=True, join=join)

    def _topology(self, connector: Connector | None) -> Topology:
        if connector is not None:
            name = connector.description if self._sentinel is None else self.settings.master_name
            return SingleServer(name, self._make_shard, connector)
        settings = self.settings
        source = self._script

        def connector_to(address: Address) -> Connector:
            async def resolve() -> Address:
                return address

            return Connector(settings, source, resolve, master_only=True)

        return Cluster(
            [address_of(settings), *settings.cluster_nodes],
            make_shard=self._make_shard,
            make_connector=connector_to,
            give_back=self._give_backs,
            stats=self.stats,
            deadline_s=settings.deadline_ms / 1000,
            backoff=Backoff(
                base_s=settings.backoff_base_ms / 1000, cap_s=settings.backoff_cap_ms / 1000, random=random.random
            ),
        )

    def dirty_key_beside(self, key: bytes) -> bytes:
        """The dirty set that a script may name together with this key, and mark."""
        return self.topology.dirty_key(key_slot(key))

    def slot_key_beside(self, key: bytes) -> bytes:
        """The same, for scripts that mark nothing."""
        if self.settings.shape != "cluster":
            return DIRTY_KEY  # for each of many keys: what its slot would be is not worth finding out
        return self.dirty_key_of_slot(key_slot(key))

    def dirty_key_of_slot(self, slot: int) -> bytes:
        """The dirty set of a slot; where there are no slots, the only one."""
        return self.topology.dirty_key(slot, marks=False)

    def _make_shard(self, connector: Connector, cluster: Cluster | None = None) -> Shard:
        return Shard(
            self.settings,
            script=self._script,
            connector=connector,
            stats=self.stats,
            random=random.random,
            give_back=self._give_backs,
            dirty_key=DIRTY_KEY,
            cluster=cluster,
        )
