"""The store's side of leases and reservations, by ``lua/give_back.lua`` and ``lua/charge.lua``.

A Cluster takes one call for each slot group, and each call notes in its own slot that it was made: what a crash or a
lost answer leaves undone is done by the next try, and what was done is not done twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from redis.exceptions import RedisError

from data_plane.holds.tokens import Hold, is_of_log
from data_plane.store.packing import encode_charge, encode_check
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import charge_script, give_back_script
from data_plane.store.subjects import give_back_key

_SLACK_MS = 60_000
"""A hold's end is remembered a little longer than the hold may live: nodes' clocks differ, and calls are retried."""
_DONE_BEFORE = -1


class RedisHoldStore:
    """Port ``HoldStore``."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store

    async def settle_once(self, hold: Hold, cost: int, remember_ms: int) -> int | None:
        """Note the cost at which a hold is settled; the one noted before, if there is one."""
        name = b"tg:settled:" + hold.id.hex().encode()
        with _faults_translated():
            if await self._store.execute("SET", name, cost, "NX", "PX", remember_ms + _SLACK_MS):
                return None
            before = await self._store.execute("GET", name)
        return cost if before is None else int(before)

    async def give_back(self, hold: Hold, cost: int, remember_ms: int) -> bool:
        """Return ``cost`` to every counter that gave it, once; whether any took it."""
        return any(credited > 0 for credited in await self._give_back(hold, cost, remember_ms))

    async def replace(self, hold: Hold, cost: int, remember_ms: int) -> bool:
        """Give back or charge the difference, each part once. A log holds whole entries: the new one goes in first.

        Whether this call did the last part: of several calls, wherever others ended, exactly one does.
        """
        taken = hold.units * hold.unit_cost
        logs, others = _parted(hold)
        done: list[int] = []
        if logs.keys:
            if cost:
                done += await self._charge(logs, cost, remember_ms)
            done += await self._give_back(logs, taken, remember_ms)
        if others.keys and cost < taken:
            done += await self._give_back(others, taken - cost, remember_ms)
        elif others.keys:
            done += await self._charge(others, cost - taken, remember_ms)
        return done[-1] != _DONE_BEFORE

    async def _give_back(self, hold: Hold, cost: int, remember_ms: int) -> list[int]:
        done = []
        for dirty, places in self._groups(hold):
            check = encode_check(cost, [hold.params[at] for at in places])
            arguments: list[bytes | int] = [hold.charged_at_us(places[0]), check, remember_ms + _SLACK_MS]
            done.append(await self._call(give_back_script(), hold, dirty, hold.id, places, arguments))
        return done

    async def _charge(self, hold: Hold, cost: int, remember_ms: int) -> list[int]:
        return [
            await self._call(
                charge_script(), hold, dirty, hold.id + b"+", places,
                [remember_ms + _SLACK_MS, *(encode_charge(hold.params[at], cost) for at in places)],
            )
            for dirty, places in self._groups(hold)
        ]  # fmt: skip

    async def _call(
        self, script: str, hold: Hold, dirty: bytes, id: bytes, places: list[int], arguments: list[bytes | int]
    ) -> int:
        """How many counters changed, or ``_DONE_BEFORE``."""
        keys = [dirty, give_back_key(hold.keys[places[0]], id), *(hold.keys[at] for at in places)]
        with _faults_translated():
            return int(await self._store.call_script(script, keys, arguments))

    def _groups(self, hold: Hold) -> Iterator[tuple[bytes, list[int]]]:
        groups: dict[bytes, list[int]] = {}
        for at, key in enumerate(hold.keys):
            groups.setdefault(self._store.dirty_key_beside(key), []).append(at)
        yield from groups.items()


@contextmanager
def _faults_translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailableError(type(error).__name__) from error


def _parted(hold: Hold) -> tuple[Hold, Hold]:
    """The counters of a hold that are logs, and the others; each part is given back under an id of its own."""
    logs = [at for at, params in enumerate(hold.params) if is_of_log(params)]
    others = [at for at in range(len(hold.params)) if at not in logs]
    return _only(hold, logs, hold.id + b"log"), _only(hold, others, hold.id)


def _only(hold: Hold, places: list[int], id: bytes) -> Hold:
    return msgspec.structs.replace(
        hold, id=id, keys=tuple(hold.keys[at] for at in places), params=tuple(hold.params[at] for at in places),
        clocks_us=tuple(hold.clocks_us[at] for at in places) if hold.clocks_us else (),
    )  # fmt: skip
