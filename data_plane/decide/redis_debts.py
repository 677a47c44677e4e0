"""Charging the store for an outage, by ``lua/charge.lua``."""

from collections.abc import Sequence

from redis.exceptions import RedisError

from data_plane.decide.store_fallback import Debt
from data_plane.store.packing import encode_charge
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import charge_script

REMEMBERED_MS = 600_000
"""For how long a call that was not answered may be made again without being done twice."""


class RedisAccounts:
    """Port ``Accounts``. One call a slot, so it works on a Cluster as well."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store

    async def charge(self, charges: Sequence[Debt], name: bytes) -> None:
        """Consume without asking whether it fits; once, even when asked again by that name."""
        groups: dict[bytes, list[Debt]] = {}
        for charge in charges:
            groups.setdefault(self._store.dirty_key_beside(charge.key), []).append(charge)
        try:
            for dirty, group in groups.items():
                keys = [dirty, dirty + b"!" + name.hex().encode(), *(charge.key for charge in group)]
                arguments: list[bytes | int] = [
                    -REMEMBERED_MS,
                    *(encode_charge(charge.params, charge.cost) for charge in group),
                ]
                await self._store.call_script(charge_script(), keys, arguments)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
