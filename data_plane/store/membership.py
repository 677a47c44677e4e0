"""How many nodes, and how many agents, of the region are alive.

The number of nodes gives the part of a limit that one may admit alone while the store is away. The number of agents
gives how their work is divided.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from data_plane.store.ports import Argument, Clock, RegionStore, StoreUnavailableError
from data_plane.store.subject_bounds import SubjectBounds

NODES = "tg:nodes"
AGENTS = "tg:agents"
FORGET_AFTER_US = 3_600 * 1_000_000
ANNOUNCE_EVERY_S = 2.0
ALIVE_FOR_S = 6.0
AGENTS_ANNOUNCE_EVERY_S = 0.5
AGENTS_ALIVE_FOR_S = 1.5
"""Agents are missed sooner: while a killed agent counts as alive, its part of the counts is not sent, and after 2 s
peers regard the region as unreachable."""


class RedisNodeRegister:
    """The registry of one kind of process in a region; ``key`` names its set. Raises ``StoreUnavailableError``."""

    def __init__(self, store: RegionStore, key: str = NODES) -> None:
        self._store = store
        self._key = key

    async def announce(self, node: str, now_us: int, since_us: int) -> int:
        """Note that ``node`` is alive; answer how many were seen since ``since_us``."""
        commands: list[Sequence[Argument]] = [
            ("ZADD", self._key, now_us, node),
            ("ZREMRANGEBYSCORE", self._key, "-inf", now_us - FORGET_AFTER_US),
            ("ZCOUNT", self._key, since_us, "+inf"),
        ]
        return int((await self._store.execute_all(commands))[-1])

    async def count(self, since_us: int) -> int:
        """How many were seen since ``since_us``."""
        return int(await self._store.execute("ZCOUNT", self._key, since_us, "+inf"))

    async def leave(self, node: str) -> None:
        """Note that ``node`` is about to end."""
        await self._store.execute("ZREM", self._key, node)

    async def memory(self) -> tuple[int, int]:
        """Bytes in use and the most the store may use; on a Cluster, of the node that answers."""
        return memory_in(await self._store.execute("INFO", "memory"))


def memory_in(info: bytes | dict[str, object]) -> tuple[int, int]:
    """``used_memory`` and ``maxmemory`` of an ``INFO memory`` reply."""
    text = info.decode() if isinstance(info, bytes) else "\n".join(f"{name}:{value}" for name, value in info.items())
    facts = dict(line.strip().split(":", 1) for line in text.splitlines() if ":" in line)
    return int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))


class Membership:
    """Announces this process and keeps the last known number; while the store is gone the number stays."""

    def __init__(
        self, name: str, register: RedisNodeRegister, clock: Clock, *,
        every_s: float = ANNOUNCE_EVERY_S, alive_for_s: float = ALIVE_FOR_S,
    ) -> None:  # fmt: skip
        self._name = name
        self._register = register
        self._clock = clock
        self._every_s, self._alive_for_us = every_s, round(alive_for_s * 1e6)
        self._live = 1

    def live_nodes(self) -> int:
        """The number of live ones of its kind as last known, this one included; at least 1."""
        return self._live

    async def run(self) -> None:
        """Announce, for ever."""
        while True:
            await self.announce()
            await asyncio.sleep(self._every_s)

    async def announce(self) -> None:
        """Announce once."""
        now_us = self._clock.now_us()
        # while the store is away, the last known number stays
        with contextlib.suppress(StoreUnavailableError):
            self._live = max(1, await self._register.announce(self._name, now_us, now_us - self._alive_for_us))

    async def leave(self) -> None:
        """Leave the registry, so that the others stop counting this process at once."""
        with contextlib.suppress(StoreUnavailableError):
            await self._register.leave(self._name)


class AgentMembership(Membership):
    """An agent's membership, which ends sooner."""

    def __init__(self, name: str, register: RedisNodeRegister, clock: Clock) -> None:
        super().__init__(name, register, clock, every_s=AGENTS_ANNOUNCE_EVERY_S, alive_for_s=AGENTS_ALIVE_FOR_S)


class NodeMembership(Membership):
    """A node's membership. It also asks how full the store is, for the subject bounds, and counts the agents."""

    def __init__(
        self, name: str, register: RedisNodeRegister, agents: RedisNodeRegister, clock: Clock, bounds: SubjectBounds
    ) -> None:
        super().__init__(name, register, clock)
        self._agents = agents
        self._bounds = bounds
        self.live_agents = 0
        """The region's live agents as last seen."""

    async def announce(self) -> None:
        """Announce once."""
        await super().announce()
        try:
            self._bounds.store_memory(*await self._register.memory())
            self.live_agents = await self._agents.count(self._clock.now_us() - int(ALIVE_FOR_S * 1e6))
        except StoreUnavailableError:
            return
