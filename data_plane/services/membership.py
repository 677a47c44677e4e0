"""How many nodes of the region are alive: what part of a limit a node may admit alone when the store is gone."""

import asyncio
from typing import Protocol

from data_plane.domain.subject_bounds import SubjectBounds
from data_plane.services.ports import Clock, StoreUnavailableError

ANNOUNCE_EVERY_S = 2.0
ALIVE_FOR_S = 6.0


class NodeRegister(Protocol):
    """Where nodes of a region find each other."""

    async def announce(self, node: str, now_us: int, since_us: int) -> int:
        """Note that ``node`` is alive; answer how many were seen since ``since_us``.

        Raises ``StoreUnavailableError``.
        """
        ...

    async def memory(self) -> tuple[int, int]:
        """Bytes in use and the most the store may use (0: unbounded). Raises ``StoreUnavailableError``."""
        ...


class Membership:
    """Announces this node and keeps the last known number; while the store is gone the number stays.

    On the way it asks how full the store is, for the subject bounds.
    """

    def __init__(self, node: str, register: NodeRegister, clock: Clock, bounds: SubjectBounds) -> None:
        self._bounds = bounds
        self._node = node
        self._register = register
        self._clock = clock
        self._live = 1

    def live_nodes(self) -> int:
        """The number of live nodes as last known, this one included; at least 1."""
        return self._live

    async def run(self) -> None:
        """Announce, for ever."""
        while True:
            await self.announce()
            await asyncio.sleep(ANNOUNCE_EVERY_S)

    async def announce(self) -> None:
        """Announce once."""
        now_us = self._clock.now_us()
        try:
            self._live = max(1, await self._register.announce(self._node, now_us, now_us - int(ALIVE_FOR_S * 1e6)))
            self._bounds.store_memory(*await self._register.memory())
        except StoreUnavailableError:
            return  # the last known number is the best there is
