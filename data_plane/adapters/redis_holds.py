"""The store's side of leases and reservations, by ``lua/give_back.lua`` and ``lua/charge.lua``.

A Cluster takes one call for each slot group. What a crash between two calls leaves undone stays consumed: the error is
under-admission.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisClusterException, RedisError

from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.domain.holds import Hold, is_of_log
from data_plane.domain.wire import encode_charge, encode_check
from data_plane.services.ports import StoreUnavailableError
from lua import charge_script, give_back_script


@contextmanager
def _faults_translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        raise StoreUnavailableError(type(error).__name__) from error


class RedisHoldStore:
    """Port ``HoldStore``."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store

    async def end(self, hold: Hold, cost: int, remember_s: float) -> int | None:
        """Note that a hold ended, if nobody has yet."""
        name = b"tidegate:hold:" + hold.id.hex().encode()
        with _faults_translated():
            if await self._store.execute("SET", name, cost, "NX", "PX", int(remember_s * 1000) + 1_000):
                return None
            before = await self._store.execute("GET", name)
        return cost if before is None else int(before)

    async def give_back(self, hold: Hold, cost: int) -> None:
        """Return ``cost`` to every counter that gave it."""
        for dirty, places in self._groups(hold):
            params = [hold.params[at] for at in places]
            keys = [dirty, *(hold.keys[at] for at in places)]
            check = encode_check(cost, params)
            with _faults_translated():
                await self._store.call_script_once(give_back_script(), keys, [hold.charged_us, check])

    async def charge(self, hold: Hold, cost: int) -> None:
        """Consume ``cost`` more from every counter."""
        for dirty, places in self._groups(hold):
            keys = [dirty, *(hold.keys[at] for at in places)]
            charges = [encode_charge(hold.params[at], cost) for at in places]
            with _faults_translated():
                await self._store.call_script(charge_script(), keys, charges)

    async def replace(self, hold: Hold, cost: int) -> None:
        """Give back or charge the difference. A log holds whole entries: there the new one goes in first."""
        taken = hold.units * hold.unit_cost
        logs, others = _parted(hold)
        if logs.keys:
            if cost:
                await self.charge(logs, cost)
            await self.give_back(logs, taken)
        if others.keys and cost < taken:
            await self.give_back(others, taken - cost)
        elif others.keys and cost > taken:
            await self.charge(others, cost - taken)

    def _groups(self, hold: Hold) -> Iterator[tuple[bytes, list[int]]]:
        groups: dict[bytes, list[int]] = {}
        for at, key in enumerate(hold.keys):
            groups.setdefault(self._store.dirty_key_beside(key), []).append(at)
        yield from groups.items()


def _parted(hold: Hold) -> tuple[Hold, Hold]:
    """The counters of a hold that are logs, and the others."""
    logs = [at for at, params in enumerate(hold.params) if is_of_log(params)]
    others = [at for at in range(len(hold.params)) if at not in logs]
    return _only(hold, logs), _only(hold, others)


def _only(hold: Hold, places: list[int]) -> Hold:
    return Hold(
        hold.kind, hold.id, hold.units, hold.unit_cost, hold.charged_us, hold.until_us,
        tuple(hold.keys[at] for at in places), tuple(hold.params[at] for at in places),
    )  # fmt: skip
