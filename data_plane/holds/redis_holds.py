"""Ends leases and reservations in the store, by ``lua/give_back.lua`` and ``lua/charge.lua``.

A Cluster takes one call for each slot. Each call notes in its own slot that it was made. So a retry does what a crash
left undone, and nothing twice.
"""

from collections.abc import Iterator

import msgspec

from data_plane.holds.tokens import Hold, is_of_log
from data_plane.store.packing import encode_charge, encode_check
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import charge_script, give_back_script
from data_plane.store.subjects import give_back_key

_SLACK_MS = 60_000
"""A hold's end is remembered for longer than the hold lasts, because clocks differ and calls are retried."""
_DONE_BEFORE = -1


class RedisHoldStore:
    """Ends holds in the store. Every method raises ``StoreUnavailableError``."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store

    async def settle_once(self, hold: Hold, cost: int, remember_ms: int) -> int | None:
        """Note, for all nodes, the cost at which a hold is settled. Returns the cost noted before, if there is one; the
        counters may lack it still, if the node that noted it died.
        """
        name = b"tg:settled:" + hold.id.hex().encode()
        if await self._store.execute("SET", name, cost, "NX", "PX", remember_ms + _SLACK_MS):
            return None
        before = await self._store.execute("GET", name)
        return cost if before is None else int(before)

    async def give_back(self, hold: Hold, cost: int, remember_ms: int) -> bool:
        """Return ``cost`` to the counters where it still counts; once, however often any node asks within
        ``remember_ms``. Returns whether any counter took it.
        """
        return any(credited > 0 for credited in await self._give_back(hold, cost, remember_ms))

    async def replace(self, hold: Hold, cost: int, remember_ms: int, *, logs_over: bool) -> bool | None:
        """Let the hold count as ``cost``, once: give back or charge the difference, each part once.

        A log stores whole entries, so the new one goes in first; where they have left by now (``logs_over``), only what
        is beyond the estimate does. Returns whether this call did the last part: exactly one of several calls does;
        ``None`` where there was nothing to do.
        """
        taken = hold.units * hold.unit_cost
        logs, others = _split_logs(hold)
        done: list[int] = []
        if logs.keys and logs_over:
            if cost > taken:
                done += await self._charge(logs, cost - taken, remember_ms)
        elif logs.keys:
            if cost:
                done += await self._charge(logs, cost, remember_ms)
            done += await self._give_back(logs, taken, remember_ms)
        if others.keys and cost < taken:
            done += await self._give_back(others, taken - cost, remember_ms)
        elif others.keys:
            done += await self._charge(others, cost - taken, remember_ms)
        return done[-1] != _DONE_BEFORE if done else None

    async def _give_back(self, hold: Hold, cost: int, remember_ms: int) -> list[int]:
        done = []
        for dirty, places in self._groups(hold):
            check = encode_check(cost, [hold.params[place] for place in places])
            arguments: list[bytes | int] = [hold.charged_at_us(places[0]), check, remember_ms + _SLACK_MS]
            done.append(await self._call(give_back_script(), hold, dirty, hold.id, places, arguments))
        return done

    async def _charge(self, hold: Hold, cost: int, remember_ms: int) -> list[int]:
        return [
            await self._call(
                charge_script(), hold, dirty, hold.id + b"+", places,
                [remember_ms + _SLACK_MS, *(encode_charge(hold.params[place], cost) for place in places)],
            )
            for dirty, places in self._groups(hold)
        ]  # fmt: skip

    async def _call(
        self, script: str, hold: Hold, dirty: bytes, id: bytes, places: list[int], arguments: list[bytes | int]
    ) -> int:
        """Returns how many counters changed, or ``_DONE_BEFORE``."""
        keys = [dirty, give_back_key(hold.keys[places[0]], id), *(hold.keys[place] for place in places)]
        return int(await self._store.call_script(script, keys, arguments))

    def _groups(self, hold: Hold) -> Iterator[tuple[bytes, list[int]]]:
        groups: dict[bytes, list[int]] = {}
        for place, key in enumerate(hold.keys):
            groups.setdefault(self._store.dirty_key_beside(key), []).append(place)
        yield from groups.items()


def _split_logs(hold: Hold) -> tuple[Hold, Hold]:
    """Split a hold into its logs and its other counters; each part is given back under an id of its own."""
    logs = [place for place, params in enumerate(hold.params) if is_of_log(params)]
    others = [place for place in range(len(hold.params)) if place not in logs]
    return _only(hold, logs, hold.id + b"log"), _only(hold, others, hold.id)


def _only(hold: Hold, places: list[int], id: bytes) -> Hold:
    return msgspec.structs.replace(
        hold, id=id, keys=tuple(hold.keys[place] for place in places),
        params=tuple(hold.params[place] for place in places),
        clocks_us=tuple(hold.clocks_us[place] for place in places) if hold.clocks_us else (),
    )  # fmt: skip
