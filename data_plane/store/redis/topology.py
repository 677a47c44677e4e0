"""Which server holds the counters of a store that is not a Cluster: the one in the URL, or the Sentinels' master."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from redis.asyncio.sentinel import Sentinel

from data_plane.store.ports import CounterCheck
from data_plane.store.redis.connect import Address, Connector, connection_options
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.shard import Shard
from data_plane.store.redis.status import ShardStatus

DIRTY_KEY = b"tg:dirty"
MARKER = DIRTY_KEY + b"!m"
"""The epoch marker of a store of one server (``lua/epoch_marker.lua``)."""


class Topology(Protocol):
    """Routes decisions to shards."""

    def submit(self, check: CounterCheck) -> None:
        """Decide ``check``; it is answered later."""
        ...

    def submit_all(self, checks: Sequence[CounterCheck]) -> None:
        """Decide many, in order."""
        ...

    def take_touched(self) -> set[int]:
        """Slots whose dirty sets may have been marked since this was last asked; none where there is only one set."""
        ...

    def dirty_key(self, slot: int | None, *, marks: bool = True) -> bytes:
        """The dirty set beside keys of this slot; ``marks``: it is named to be marked."""
        ...

    def statuses(self) -> tuple[ShardStatus, ...]:
        """Each server's state."""
        ...

    async def start(self) -> None:
        """Connect. Raises ``StoreMisconfiguredError``; an absent server is retried behind."""
        ...

    async def close(self, timeout_s: float) -> None:
        """Finish what is in flight within ``timeout_s`` and disconnect."""
        ...


class SingleServer:
    """One server decides everything."""

    def __init__(self, address: str, make_shard: Callable[[Connector], Shard], connector: Connector) -> None:
        self._address = address
        self.shard = make_shard(connector)
        self.submit = self.shard.submit
        self.submit_all = self.shard.submit_all

    def dirty_key(self, slot: int | None, *, marks: bool = True) -> bytes:  # noqa: ARG002  slots mean nothing here
        """The one dirty set."""
        return DIRTY_KEY

    def take_touched(self) -> set[int]:
        """There are no slots."""
        return set()

    def statuses(self) -> tuple[ShardStatus, ...]:
        """The one server's state."""
        return (self.shard.status(self._address),)

    async def start(self) -> None:
        """Connect."""
        await self.shard.keeper.start()

    async def close(self, timeout_s: float) -> None:
        """Disconnect."""
        await self.shard.close(timeout_s)


async def address_in_url() -> Address | None:
    """A standalone server stays where the URL says."""
    return None


def make_sentinel(settings: RedisSettings) -> Sentinel:
    """redis-py's Sentinel client; its sentinels share the TLS options of the master."""
    options = {
        name: value for name, value in connection_options(settings).items() if name.startswith(("socket_", "ssl_"))
    }
    if settings.url.startswith("rediss://"):
        options["ssl"] = True
    options |= {"username": settings.sentinel_username, "password": settings.sentinel_password}
    # redis-py leaves this constructor untyped
    return Sentinel(list(settings.sentinels), sentinel_kwargs=options)  # type: ignore[no-untyped-call]


def master_of(sentinel: Sentinel, master_name: str) -> Callable[[], Awaitable[Address | None]]:
    """Ask the sentinels where the master is now."""

    async def resolve() -> Address | None:
        host, port = await sentinel.discover_master(master_name)
        return str(host), int(port)

    return resolve
