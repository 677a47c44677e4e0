"""A Cluster: one shard a master, decisions routed by slot, and the map kept true through MOVED, ASK and failover."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from redis.crc import key_slot
from redis.exceptions import RedisError

from data_plane.store.packing import SHARED
from data_plane.store.ports import CounterCheck
from data_plane.store.redis.calls import Answers, Call
from data_plane.store.redis.circuit import Backoff
from data_plane.store.redis.connect import Address, ConnectFailedError, Connector
from data_plane.store.redis.shard import Shard
from data_plane.store.redis.slots import SLOTS, SlotRange, read_redirect, slot_tags
from data_plane.store.redis.split import GiveBack, Split
from data_plane.store.redis.status import ShardStatus, StoreStats

log = logging.getLogger(__name__)

RETRY_S = 0.002
"""How long to wait before a decision on a slot that is being moved is tried again."""
MOST_MOVES = 4
REFRESH_EVERY_S = 15.0
REFRESH_GAP_S = 0.05


class Cluster:
    """Routes decisions to the master of their slot."""

    def __init__(
        self,
        seeds: list[Address],
        *,
        make_shard: "Callable[[Connector, Cluster], Shard]",
        make_connector: Callable[[Address], Connector],
        give_back: GiveBack,
        stats: StoreStats,
        deadline_s: float,
        backoff: Backoff,
    ) -> None:
        self._seeds = seeds
        self._make_shard = make_shard
        self._make_connector = make_connector
        self._give_back = give_back
        self._stats = stats
        self._answers = Answers(stats)
        self._patience_s = deadline_s / 2
        self._loop = asyncio.get_running_loop()
        self._shards: dict[Address, Shard] = {}
        self._owners: list[Shard | None] = [None] * SLOTS
        self._tags = slot_tags()
        self._dirty: dict[int, bytes] = {}
        self._touched: set[int] = set()
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._backoff = backoff
        self._has_map = True
        self._closed = False

    # Decisions

    def submit(self, check: CounterCheck) -> None:
        """Decide on the shard of the check's slot, or on several."""
        keys = check.keys
        slot = key_slot(keys[0])
        groups: dict[int, list[int]] | None = None
        for place in range(1, len(keys)):
            other = key_slot(keys[place])
            if groups is None:
                if other == slot:
                    continue
                groups = {slot: list(range(place))}
            groups.setdefault(other, []).append(place)
        if groups is None:
            self._submit_to(slot, check)
            return
        Split(check, list(groups.values()), submit=self.submit, give_back=self._give_back, answers=self._answers)

    def submit_all(self, checks: Sequence[CounterCheck]) -> None:
        """Decide each on the shard of its slot, in order."""
        for check in checks:
            self.submit(check)

    def slot_of(self, check: CounterCheck) -> int:
        """The slot of a check that has only one."""
        return key_slot(check.keys[0])

    def dirty_key(self, slot: int | None, *, marks: bool = True) -> bytes:
        """The dirty set of a slot: ``tg:dirty:{tag}``, whose tag hashes to it."""
        if slot is None:
            raise ValueError("on a Cluster every call has a slot")
        if marks:
            self._touched.add(slot)
        key = self._dirty.get(slot)
        if key is None:
            key = self._dirty[slot] = b"tg:dirty:{%b}" % self._tags[slot]
        return key

    def dirty_key_of(self, checks: list[CounterCheck], slot: int | None) -> bytes:
        """The slot's dirty set; where no limit marks it, the first counter stands in.

        While a slot is being moved, a server runs only calls whose keys are all there, or of which there is only one:
        naming a dirty set that need not exist would hold up every decision until the move is over.
        """
        if any(params[0] & SHARED for check in checks for params in check.params):
            return self.dirty_key(slot)
        return checks[0].keys[0]

    def key_on(self, shard: object, name: bytes) -> bytes:
        """A key of this name in the first slot of a master; without slots another key, whose error names the holder."""
        slot = next((slot for slot, owner in enumerate(self._owners) if owner is shard), None)
        return name if slot is None else b"%b:{%b}" % (name, self._tags[slot])

    def take_touched(self) -> set[int]:
        """Slots whose dirty sets this node may have marked since this was last asked."""
        touched, self._touched = self._touched, set()
        return touched

    def redirect(self, call: Call, code: str, message: str) -> None:
        """Bring a call that did not run to where its slot is now."""
        if not call.unanswered:
            return
        if code == "TRYAGAIN":
            self._later(call)
            return
        self._stats.redirects += 1
        try:
            slot, address = read_redirect(message, self._seeds[0][0])
        except ValueError:
            self._answers.refuse(call.give_up(), "redirected")
            return
        shard = self._shard_at(address)
        if code == "MOVED":
            self._owners[slot] = shard
            self.want_refresh()
        if call.moves == MOST_MOVES:  # masters that send it to each other
            self._answers.refuse(call.give_up(), "redirected")
        elif code == "MOVED":
            shard.send_moved(call)
        elif shard.keeper.link is None:
            self._later(call)
        else:
            shard.send_asking(call)

    def _submit_to(self, slot: int, check: CounterCheck) -> None:
        shard = self._owners[slot]
        if shard is not None:
            shard.submit(check)
            return
        self.want_refresh()
        self._answers.refuse_soon(check, "closed" if self._closed else "cluster_down")

    def _later(self, call: Call) -> None:
        self._loop.call_later(RETRY_S, self._again, call.unanswered, call.unanswered_times)

    def _again(self, checks: list[CounterCheck], times: list[float]) -> None:
        """Try decisions of one slot again while there is time; giving up is the slot's doing, not a server's."""
        slot = key_slot(checks[0].keys[0])
        shard = self._owners[slot]
        horizon = self._loop.time() - self._patience_s
        fresh = next((place for place, time in enumerate(times) if time > horizon), len(times))
        if shard is None or self._closed:
            fresh = len(times)
        self._answers.refuse(checks[:fresh], "slot_migrating")
        if shard is not None and fresh < len(checks):
            shard.send_alone(checks[fresh:], times[fresh:], slot)

    # The map

    async def start(self) -> None:
        """Read the map and connect to every master. Raises ``StoreMisconfiguredError``."""
        await self._refresh(connect=True)
        self._spawn(self._keep_map())

    def want_refresh(self) -> None:
        """Read the map again soon, as it may be old."""
        self._wanted.set()

    def statuses(self) -> tuple[ShardStatus, ...]:
        """The state of every master."""
        return tuple(shard.status(f"{host}:{port}") for (host, port), shard in self._shards.items())

    async def close(self, timeout_s: float) -> None:
        """Disconnect from every master."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(shard.close(timeout_s) for shard in self._shards.values()))
        self._owners = [None] * SLOTS

    async def _keep_map(self) -> None:
        while not self._closed:
            try:
                async with asyncio.timeout(REFRESH_EVERY_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            await self._refresh(connect=False)
            await asyncio.sleep(REFRESH_GAP_S + (0.0 if self._has_map else self._backoff.next_s()))

    async def _refresh(self, *, connect: bool) -> None:
        ranges = await self._read_map()
        self._has_map = bool(ranges)
        if not ranges:
            self.want_refresh()
            return
        self._backoff.reset()
        owners: list[Shard | None] = [None] * SLOTS
        for first, last, host, port in ranges:
            owners[first : last + 1] = [self._shard_at((host, port), begin=not connect)] * (last + 1 - first)
        self._owners = owners
        if connect:
            await asyncio.gather(*(shard.keeper.start() for shard in self._shards.values()))
        in_use = {(host, port) for _, _, host, port in ranges}
        for address in self._shards.keys() - in_use:
            # A master without slots may be about to get some (ASK names it first): only the unreachable are dropped.
            if self._shards[address].keeper.link is None:
                gone = self._shards.pop(address)
                self._stats.circuits_opened_before += gone.circuit.opened
                self._spawn(gone.close(1.0))

    async def _read_map(self) -> list[SlotRange]:
        for address in [*self._shards, *(seed for seed in self._seeds if seed not in self._shards)]:
            try:
                return await self._make_connector(address).read_slots(address[0])
            except (ConnectFailedError, RedisError, OSError, TimeoutError) as error:
                level = logging.WARNING if self._has_map else logging.DEBUG
                log.log(level, "cannot read the Cluster's map from %s:%d: %s", *address, error)
        return []

    def _shard_at(self, address: Address, *, begin: bool = True) -> Shard:
        shard = self._shards.get(address)
        if shard is None:
            shard = self._shards[address] = self._make_shard(self._make_connector(address), self)
            if begin:
                shard.keeper.begin()
        return shard

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
