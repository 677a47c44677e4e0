"""When the store is back: what was admitted without it is charged to it, where it still counts."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from data_plane.services.last_resort import Charge, LastResort
from data_plane.services.ports import Clock, StoreUnavailableError

log = structlog.get_logger()

LOOK_EVERY_S = 0.1
CHARGES_A_CALL = 100


class Accounts(Protocol):
    """The store's side of an outage."""

    async def charge(self, charges: Sequence[Charge]) -> None:
        """Consume without asking whether it fits. Raises ``StoreUnavailableError``."""
        ...


class Recovery:
    """Watches for the store's return. ``usable`` says whether it decides at this moment."""

    def __init__(self, last_resort: LastResort, accounts: Accounts, clock: Clock, usable: Callable[[], bool]) -> None:
        self._last_resort = last_resort
        self._accounts = accounts
        self._clock = clock
        self._usable = usable
        self._unpaid: list[Charge] = []
        self.charged = 0
        """Units charged since the start."""

    async def run(self) -> None:
        """Watch, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._usable() and (self._unpaid or self._last_resort.owing()):
                await self.settle()

    async def settle(self) -> None:
        """Charge what is owed, a few counters a call so that decisions get their turn.

        A call that fails is tried again: at worst something is charged twice, which admits less, never more.
        """
        self._unpaid += self._last_resort.close_accounts(self._clock.now_us())
        try:
            while self._unpaid:
                part = self._unpaid[:CHARGES_A_CALL]
                await self._accounts.charge(part)
                self.charged += sum(charge.cost for charge in part)
                del self._unpaid[: len(part)]
        except StoreUnavailableError as error:
            log.warning("outage_not_charged", reason=error.reason, counters=len(self._unpaid))
