"""What a node reads of its region: which peers are unreachable, and whether its shares are proven."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from data_plane.rights.epoch_store import Vouch
from data_plane.rights.region_state import RegionState
from data_plane.store.ports import StoreUnavailableError

log = structlog.get_logger()

LOOK_EVERY_S = 0.25


class Reachable(Protocol):
    """Who keeps which peers are heard."""

    async def look(self) -> None:
        """Look who is unreachable by now, and say so. Raises ``StoreUnavailableError``."""
        ...


class Vouches(Protocol):
    """Where agents say that shares are proven."""

    async def vouched(self) -> Vouch | None:
        """Who vouches in the store's epoch, if anybody. Raises ``StoreUnavailableError``."""
        ...


class RegionWatch:
    """Looks a few times a second. ``refusals`` counts how often the store refused a strict limit."""

    def __init__(
        self, state: RegionState, peers: Reachable, vouches: Vouches | None, refusals: Callable[[], int]
    ) -> None:
        self._state = state
        self._peers = peers
        self._vouches = vouches
        self._refusals = refusals
        self._refused = 0

    async def run(self) -> None:
        """Look, for ever."""
        trouble: str | None = None
        while True:
            try:
                await self.look()
                trouble = None
            except StoreUnavailableError as error:
                if error.reason != trouble:
                    log.warning("region_not_seen", reason=error.reason)
                trouble = error.reason
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once. Raises ``StoreUnavailableError``."""
        await self._peers.look()
        if not self._state.proven and (self._vouches is None or await self._vouches.vouched() is not None):
            self._state.prove()
        refused = self._refusals()
        if refused != self._refused:
            self._refused = refused
            self._state.renew()
