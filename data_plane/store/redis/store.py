"""``RedisCounterStore``: the port ``CounterStore`` over Redis or Valkey of any shape."""

import asyncio
import random as system_random
from collections.abc import Callable, Mapping, Sequence
from secrets import token_bytes
from typing import Any

from redis.crc import key_slot

from data_plane.store.ports import Argument, Reply, ScriptCall
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

    What asks beside the hot pipeline raises ``StoreUnavailableError``. ``random`` gives floats in [0, 1) for jitter.
    """

    def __init__(
        self,
        settings: RedisSettings,
        random: Callable[[], float] = system_random.random,
        join: Join | None = None,
    ) -> None:
        self.settings = settings
        self.stats = StoreStats()
        self._random = random
        self._join = join
        self._script = decide_script()
        self._sentinel = make_sentinel(settings) if settings.shape == "sentinel" else None
        self._give_backs = GiveBacks(
            give_back_script(), self.call_script, self.dirty_key_beside, self.stats, token_bytes
        )
        self._side_link: SideLink | None = None
        self.topology = self._make_topology()
        self.submit = self.topology.submit
        """Decides a check as soon as possible. It is answered later, never from within this call."""
        self.submit_all = self.topology.submit_all
        """The same for many at once, in order."""
        self._side: SideClient | None = None

    async def start(self) -> None:
        """Connect and check the server. Raises ``StoreMisconfiguredError``; an absent server is retried behind."""
        await self.topology.start()

    async def close(self, timeout_s: float = 1.0) -> None:
        """Refuse what is new, finish what is in flight within ``timeout_s``, disconnect."""
        await self.topology.close(timeout_s)
        await self._give_backs.finish()
        if self._side is not None:
            await self._side.close()
        if self._sentinel is not None:
            await asyncio.gather(*(sentinel.aclose() for sentinel in self._sentinel.sentinels))

    async def settled(self) -> None:
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

    async def execute(self, *args: Argument) -> Reply:
        """One command beside the hot pipeline."""
        return await self._side_client().execute(*args)

    async def call_script(self, source: str, keys: Sequence[bytes], args: Sequence[Argument]) -> Reply:
        """One script beside the hot pipeline; on a Cluster all keys must share a slot.

        It is sent again when the connection breaks: a script must bear to run twice.
        """
        return await self._side_client().call_script(source, keys, args)

    async def execute_all(self, commands: Sequence[Sequence[Argument] | ScriptCall]) -> list[Reply]:
        """Many commands and scripts beside the hot pipeline, in one round trip to each server.

        Beside a script they must bear to run twice too.
        """
        return await self._side_client().execute_all(commands)

    async def scan(self, cursor: str, pattern: str, count: int) -> tuple[str, list[bytes]]:
        """A page of all keys; the cursor '' begins, and ends."""
        return await self._side_client().scan(cursor, pattern, count)

    async def info(self) -> Sequence[Mapping[str, Any]]:
        """``INFO`` of every server that holds counters."""
        return await self._side_client().info()

    def _side_client(self) -> SideClient:
        if self._side is None:
            self._side = SideClient(self.settings, self._sentinel, self._side_link)
        return self._side

    def _make_topology(self) -> Topology:
        settings = self.settings
        if settings.shape == "cluster":
            return self._make_cluster()
        if self._sentinel is not None:
            resolve = master_of(self._sentinel, settings.master_name)
            connector = Connector(settings, self._script, resolve, master_only=True, join=self._join)
            name = settings.master_name
        else:
            connector = Connector(settings, self._script, address_in_url, master_only=False, join=self._join)
            name = connector.description
        self._side_link = SideLink(connector, settings.connect_timeout_ms / 1000)
        return SingleServer(name, self._make_shard, connector)

    def _make_cluster(self) -> Cluster:
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
                base_s=settings.backoff_base_ms / 1000, cap_s=settings.backoff_cap_ms / 1000, random=self._random
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
            random=self._random,
            give_back=self._give_backs,
            dirty_key=DIRTY_KEY,
            cluster=cluster,
        )
