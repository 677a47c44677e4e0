"""Settlement: once the store is back, units that were admitted without it are charged to it, where they still count."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

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


class Settlement:
    """Watches for the store's return. ``usable`` says whether it decides at this moment."""

    def __init__(
        self, debts: Debts, accounts: "RedisAccounts", clock: Clock, usable: Callable[[], bool],
        random_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._debts = debts
        self._accounts = accounts
        self._clock = clock
        self._usable = usable
        self._random_bytes = random_bytes
        self._unanswered: tuple[bytes, list[Debt]] | None = None
        self.charged = 0
        """Units charged since the start."""

    async def run(self) -> None:
        """Settle whenever the store is back, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._usable() and self._debts.owing():
                await self.settle()

    async def settle(self) -> None:
        """Charge all debts, a few counters a call, so that decisions get their turn.

        A call that failed may have been executed: it is repeated under the same name before anything else is charged.
        """
        try:
            if self._unanswered is not None:
                name, debts = self._unanswered
                await self._charge(self._debts.still_owed(debts, self._clock.now_us()), name)
            owing = self._debts.owing()
            for first in range(0, len(owing), CHARGES_A_CALL):
                debts = self._debts.of(owing[first : first + CHARGES_A_CALL], self._clock.now_us())
                await self._charge(debts, self._random_bytes(ID_BYTES))
        except StoreUnavailableError as error:
            log.warning("outage_not_charged", reason=error.reason)

    async def _charge(self, debts: list[Debt], name: bytes) -> None:
        self._unanswered = name, debts
        if debts:
            await self._accounts.charge(debts, name)
            self.charged += sum(debt.cost for debt in debts)
            self._debts.paid(debts)
        self._unanswered = None


REMEMBERED_MS = 600_000
"""For how long an unanswered call may be repeated without being executed twice."""


class RedisAccounts:
    """The store's side of an outage. It makes one call a slot, so it works on a Cluster as well.

    ``params_in_force`` finds the parameters of a key's limit as it is by now: charged under those from before, a bucket
    would be cut to its former size.
    """

    def __init__(self, store: RedisCounterStore, params_in_force: Callable[[bytes], bytes | None]) -> None:
        self._store = store
        self._params_in_force = params_in_force

    async def charge(self, charges: Sequence[Debt], name: bytes) -> None:
        """Consume without a check of limits; once, even when called again with the same name.

        Raises ``StoreUnavailableError``.
        """
        groups: dict[bytes, list[Debt]] = {}
        for charge in charges:
            groups.setdefault(self._store.dirty_key_beside(charge.key), []).append(charge)
        for dirty, group in groups.items():
            keys = [dirty, dirty + b"!" + name.hex().encode(), *(charge.key for charge in group)]
            arguments: list[bytes | int] = [
                -REMEMBERED_MS,
                *(encode_charge(self._params_in_force(one.key) or one.params, one.cost) for one in group),
            ]
            await self._store.call_script(charge_script(), keys, arguments)
