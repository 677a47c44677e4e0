"""The region's ring of denials in Redis, a list a caller. All keys share a slot, so that a batch is one script call."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, zip_longest

import msgspec
from redis.exceptions import RedisError

from data_plane.decide.denial_ring import Caller, Found
from data_plane.store.ports import Argument, StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import denials_script
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.denials import KEY_SHOWN, Denial, DenialQuery

CLIENTS, ADDRESSES = b"{tg:denials}:c", b"{tg:denials}:a"
LATEST, BY_MINUTE = b":l", b":m"
MOST_LATEST = 50
MOST_BY_MINUTE = 100
CALLER_BYTES = 32 * 1024
"""The store's memory for one caller's full ring, rounded up."""
KEPT_MS = 24 * 3_600_000
CALLERS_A_LOOK = 10
"""Callers' rings that are read in one call: a few milliseconds of the asking process."""
_decode = msgspec.msgpack.Decoder(Denial).decode


class RedisDenials:
    """Port ``DenialStore``. ``max_bytes`` bounds the ring in the store; a quarter of it is for addresses.

    A process that only reads needs no bound.
    """

    def __init__(
        self, store: RedisCounterStore, max_bytes: int = 0, elapsed_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._most = {CLIENTS: max_bytes * 3 // 4 // CALLER_BYTES, ADDRESSES: max_bytes // 4 // CALLER_BYTES}
        self._elapsed_s = elapsed_s

    async def keep(self, callers: list[Caller], *, are_clients: bool) -> None:
        """One call of ``denials.lua``."""
        index = CLIENTS if are_clients else ADDRESSES
        keys = [index, *chain.from_iterable(_rings(index, one.name.encode()) for one in callers)]
        arguments: list[Argument] = [
            self._most[index], MOST_LATEST, MOST_BY_MINUTE, KEPT_MS, index + b":", LATEST, BY_MINUTE,
        ]  # fmt: skip
        for one in callers:
            arguments += [one.name, one.at_ms, len(one.packed), *one.packed]
        with _translated():
            await self._store.call_script(denials_script(), keys, arguments)

    async def find(self, query: DenialQuery, within_s: float) -> Found:
        """Read callers in the order of their last denials, newest first."""
        ends_s = self._elapsed_s() + within_s
        found: dict[Denial, Denial] = {}
        looked = 0
        with _translated():
            rings = await self._to_look_at(query)
            while looked < len(rings):
                if looked and self._elapsed_s() >= ends_s:
                    told = f"{looked // 2} of {len(rings) // 2} callers' denials were looked through in {within_s:g} s"
                    return Found(_newest(found, query), told)
                commands = [("LRANGE", key, 0, -1) for key in rings[looked : looked + 2 * CALLERS_A_LOOK]]
                for packed in chain.from_iterable(await self._store.execute_all(commands)):
                    denial = _fitting(packed, query)
                    if denial is not None:
                        # in both rings, or written twice by a node that got no answer the first time
                        found.setdefault(msgspec.structs.replace(denial, left_out=0), denial)
                looked += len(commands)
                if found and query.request_id is not None:
                    break
        return Found(_newest(found, query), None)

    async def _to_look_at(self, query: DenialQuery) -> list[bytes]:
        """The rings that may hold matches, the most recently denied callers first."""
        if query.client is not None:
            return list(_rings(CLIENTS, query.client.encode()))
        indexes = (CLIENTS, ADDRESSES)
        names = [await self._store.execute("ZREVRANGEBYSCORE", index, "+inf", query.since_ms) for index in indexes]
        in_turn = chain.from_iterable(zip_longest(*names))
        rings = (_rings(indexes[at % 2], name) for at, name in enumerate(in_turn) if name is not None)
        return list(chain.from_iterable(rings))


def _rings(index: bytes, name: bytes) -> tuple[bytes, bytes]:
    return b"%b:%b%b" % (index, name, LATEST), b"%b:%b%b" % (index, name, BY_MINUTE)


def _fitting(packed: bytes, query: DenialQuery) -> Denial | None:
    """The denial, if it matches the query; the bytes of most show at once that they do not."""
    for text in (query.request_id, query.ip, query.key and query.key[:KEY_SHOWN]):
        if text is not None and text.encode() not in packed:
            return None
    try:
        denial = _decode(packed)
    except UNREADABLE:
        return None  # of another version
    return denial if query.fits(denial) else None


def _newest(found: Mapping[Denial, Denial], query: DenialQuery) -> list[Denial]:
    return sorted(found.values(), key=lambda denial: denial.at_ms, reverse=True)[: query.most]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(type(error).__name__) from error
