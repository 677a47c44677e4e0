"""Settlement: once the store is back, units that were admitted without it are charged to it, where they still count."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from data_plane.config.index import RuleIndex
from data_plane.config.limits_of_keys import params_in_force
from data_plane.decide.debts import Debt, Debts
from data_plane.store.packing import encode_charge
from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import charge_script

log = structlog.get_logger()

LOOK_EVERY_S = 0.1
CHARGES_A_CALL = 25
"""About a millisecond of the event loop."""
ID_BYTES = 12
REMEMBERED_MS = 600_000
"""For how long an unanswered call may be repeated without being executed twice."""


class Settlement:
    """Watches for the store's return, and charges ``debts`` to it."""

    def __init__(
        self, debts: Debts, store: RedisCounterStore, clock: Clock, index: Callable[[], RuleIndex],
        random_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._debts = debts
        self._store = store
        self._clock = clock
        self._index = index
        self._random_bytes = random_bytes
        self._unanswered: tuple[bytes, list[Debt]] | None = None
        self._refused: str | None = None
        """Why the store took no charge last, which is logged when it changes: a full store answers, and takes none."""
        self.charged = 0
        """Units charged since the start."""

    async def run(self) -> None:
        """Settle whenever the store is back, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._store.status().usable and self._debts.owing():
                await self.settle()

    async def settle(self) -> None:
        """Charge all debts, a few counters a call, so that decisions get their turn.

        A call that failed may have been executed: it is repeated under the same name before anything else is charged.
        """
        try:
            if self._unanswered is not None:
                name, debts = self._unanswered
                await self._settle(self._debts.still_owed(debts, self._clock.now_us()), name)
            owing = self._debts.owing()
            for first in range(0, len(owing), CHARGES_A_CALL):
                debts = self._debts.of(owing[first : first + CHARGES_A_CALL], self._clock.now_us())
                await self._settle(debts, self._random_bytes(ID_BYTES))
            self._refused = None
        except StoreUnavailableError as error:
            if error.reason != self._refused:
                log.warning("outage_not_charged", reason=error.reason)
            self._refused = error.reason

    async def _settle(self, debts: list[Debt], name: bytes) -> None:
        self._unanswered = name, debts
        if debts:
            await self.charge(debts, name)
            self.charged += sum(debt.cost for debt in debts)
            self._debts.paid(debts)
        self._unanswered = None

    async def charge(self, debts: Sequence[Debt], name: bytes) -> None:
        """Consume without a check of limits, by one call a slot; once, even when called again with the same name.

        It is charged under the limits in force by now: under those from before, a bucket would be cut to its former
        size. Raises ``StoreUnavailableError``.
        """
        groups: dict[bytes, list[Debt]] = {}
        for debt in debts:
            groups.setdefault(self._store.dirty_key_beside(debt.key), []).append(debt)
        index, now_s = self._index(), self._clock.now_us() / 1_000_000
        for dirty, group in groups.items():
            keys = [dirty, dirty + b"!" + name.hex().encode(), *(debt.key for debt in group)]
            charges = (
                encode_charge(params_in_force(index, debt.key, now_s) or debt.params, debt.cost) for debt in group
            )
            await self._store.call_script(charge_script(), keys, [-REMEMBERED_MS, *charges])
