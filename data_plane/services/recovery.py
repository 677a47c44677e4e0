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
ID_BYTES = 12


class Accounts(Protocol):
    """The store's side of an outage."""

    async def charge(self, charges: Sequence[Charge], name: bytes) -> None:
        """Consume without asking whether it fits; once, even when asked again by that name.

        Raises ``StoreUnavailableError``.
        """
        ...


class Recovery:
    """Watches for the store's return. ``usable`` says whether it decides at this moment."""

    def __init__(
        self, last_resort: LastResort, accounts: Accounts, clock: Clock, usable: Callable[[], bool],
        random_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._last_resort = last_resort
        self._accounts = accounts
        self._clock = clock
        self._usable = usable
        self._random_bytes = random_bytes
        self._unanswered: tuple[bytes, list[Charge]] | None = None
        self.charged = 0
        """Units charged since the start."""

    async def run(self) -> None:
        """Watch, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._usable() and self._last_resort.owing():
                await self.settle()

    async def settle(self) -> None:
        """Charge what is owed, a few counters a call so that decisions get their turn.

        A call that fails may have been done: it is made again under the same name before anything else is charged.
        """
        try:
            if self._unanswered is not None:
                name, charges = self._unanswered
                await self._charge(self._last_resort.still_owed(charges, self._clock.now_us()), name)
            charges = self._last_resort.charges(self._clock.now_us())
            for first in range(0, len(charges), CHARGES_A_CALL):
                await self._charge(charges[first : first + CHARGES_A_CALL], self._random_bytes(ID_BYTES))
        except StoreUnavailableError as error:
            log.warning("outage_not_charged", reason=error.reason)

    async def _charge(self, charges: list[Charge], name: bytes) -> None:
        self._unanswered = name, charges
        if charges:
            await self._accounts.charge(charges, name)
            self.charged += sum(charge.cost for charge in charges)
            self._last_resort.paid(charges)
        self._unanswered = None
