"""Giving back what one slot's group consumed when another group of the same decision denied."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from redis.exceptions import RedisError

from data_plane.store.packing import encode_check
from data_plane.store.ports import CounterCheck
from data_plane.store.redis.status import StoreStats
from data_plane.store.subjects import give_back_key

log = logging.getLogger(__name__)

MOST_UNDER_WAY = 256
ID_BYTES = 8
REMEMBERED_MS = 60_000
"""Longer than redis-py goes on trying."""
CallScript = Callable[[str, Sequence[bytes], Sequence[bytes | int]], Awaitable[object]]


class GiveBacks:
    """Runs the give-back script beside the hot pipeline.

    One that fails, or that comes when too many are under way, is only counted: what stays consumed denies too much for
    the rest of a window and never admits too much.
    """

    def __init__(
        self, script: str, call_script: CallScript, dirty_key: Callable[[bytes], bytes], stats: StoreStats,
        random_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._script = script
        self._call_script = call_script
        self._random_bytes = random_bytes
        self._dirty_key = dirty_key
        self._stats = stats
        self._under_way: set[asyncio.Task[None]] = set()

    def __call__(self, check: CounterCheck, now_us: int) -> None:
        """Give back what ``check`` consumed when the store's clock was ``now_us``."""
        if len(self._under_way) >= MOST_UNDER_WAY:
            self._stats.give_back_failures += 1
            return
        task = asyncio.create_task(self._run(check, now_us), name="redis-give-back")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def finish(self) -> None:
        """Wait for those under way; each is bounded by the client's own time-out."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _run(self, check: CounterCheck, now_us: int) -> None:
        own = give_back_key(check.keys[0], self._random_bytes(ID_BYTES))
        keys = [self._dirty_key(check.keys[0]), own, *check.keys]
        arguments: list[bytes | int] = [now_us, encode_check(check.cost, check.params), REMEMBERED_MS]
        try:
            await self._call_script(self._script, keys, arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._stats.give_back_failures += 1
            log.warning("could not give back what a denied decision consumed: %s", error)
        else:
            self._stats.given_back += 1
