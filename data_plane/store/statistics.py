"""How full and how busy the region's store is, asked now and then: for the metrics, on the path of no decision."""

import asyncio
from typing import NamedTuple, Protocol

from data_plane.store.ports import StoreUnavailableError

ASK_EVERY_S = 5.0


class StoreSize(NamedTuple):
    """All servers that hold counters together. Sizes are bytes; ``max_bytes`` 0 means no bound."""

    keys: int
    used_bytes: int
    max_bytes: int
    commands: int
    """Commands since the servers started, by whomever."""
    evicted: int
    """Keys that the servers threw out for want of memory; anything but 0 is lost counts."""


class StoreSurvey(Protocol):
    """Whoever can ask the store about itself."""

    async def size(self) -> StoreSize:
        """The store as it is now. Raises ``StoreUnavailableError``."""
        ...


class Census:
    """Keeps the last answer; ``size`` is ``None`` while there is none, or when the last question failed."""

    def __init__(self, survey: StoreSurvey) -> None:
        self._survey = survey
        self.size: StoreSize | None = None

    async def run(self) -> None:
        """Ask, for ever."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_EVERY_S)

    async def ask(self) -> None:
        """Ask once."""
        try:
            self.size = await self._survey.size()
        except StoreUnavailableError:
            self.size = None
