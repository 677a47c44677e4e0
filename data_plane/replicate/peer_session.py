"""One peer, as the agent that sends to it knows it: what waits for it, sent in order, one message at a time."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from data_plane.replicate.count_store import News
from data_plane.replicate.tally import ReplicationTally
from data_plane.replicate.timing import DEFAULT_TIMING
from data_plane.store.ports import Clock, UnreachablePeerError
from tidegate.contract.counts import MAX_CELLS, Cell, Counts, CountsAnswer, encode_counts

log = structlog.get_logger()

MAX_WAITING = 20 * MAX_CELLS
"""Cells that wait for one peer; who lets more come together is sent everything anew when it is done."""


class PeerTransport(Protocol):
    """The way to another region's agents."""

    async def send(self, to_region: str, url: str, message: bytes) -> CountsAnswer:
        """Deliver one message (``tidegate.contract.counts.encode_counts``). Raises ``UnreachablePeerError``."""
        ...


@dataclass
class Batch:
    """News that was collected at one time, on its way to every peer in ``waiting``.

    ``complete`` are slices with the instant (the sender's clock) up to which a peer has everything once it has this and
    what came before. ``unplaced`` are counters that some peer could not place.
    """

    news: News
    complete: Mapping[int, int]
    waiting: set[str]
    unplaced: set[bytes] = field(default_factory=set)


class PeerSession:
    """This agent's conversation with one peer. ``on_back`` is called when it answers again, or as a new epoch."""

    def __init__(
        self, own: str, peer: str, transport: PeerTransport, clock: Clock, tally: ReplicationTally,
        on_back: Callable[[], None],
    ) -> None:  # fmt: skip
        self.peer = peer
        self.epoch: str | None = None
        """That of its store, as it answered; ``None``: it was never sent everything, or is away."""
        self.sweeping = True
        """It has not been sent everything yet, as one that is new to this agent, or was away."""
        self.is_noted = False
        """The store says that this epoch was sent everything, for whoever sends next."""
        self.complete_after_us = 0
        """Once all news older than this was sent, it has."""
        self.hand_back: dict[str, list[Cell]] = {}
        self._own = own
        self._transport = transport
        self._clock = clock
        self._tally = tally
        self._on_back = on_back
        self._queue: deque[Batch] = deque()
        self._waiting = 0
        self._under_way: asyncio.Task[None] | None = None
        self._heartbeat_us = 0
        self._failing_since_us: int | None = None
        self._is_behind = False
        """More came together than it may let wait: it is sent everything anew once it answers."""

    @property
    def is_away(self) -> bool:
        """Whether it has not answered for so long that nothing waits for it."""
        since_us = self._failing_since_us
        return since_us is not None and self._clock.now_us() - since_us > DEFAULT_TIMING.stale_after_us

    @property
    def fills_a_message(self) -> bool:
        """Whether as much waits as one message takes."""
        return self._waiting >= MAX_CELLS

    @property
    def hears_of_epochs(self) -> bool:
        """Whether it is to be told of epochs that are over; which of its own are only it can say."""
        return self.sweeping and self.epoch is not None

    @property
    def waits_for_back(self) -> int:
        """Cells that wait to be handed back to it."""
        return sum(map(len, self.hand_back.values()))

    def add(self, batch: Batch) -> None:
        """Send this after what waits already. Who is away is not waited for: it is sent everything when it is back."""
        if self._waiting > MAX_WAITING:
            self._is_behind = True
        if self._is_behind or self.is_away:
            self.begin_again()
            batch.waiting.discard(self.peer)
            return
        self._queue.append(batch)
        self._waiting += batch.news.number

    def drop(self) -> None:
        """Nothing waits for this peer any more."""
        for batch in self._queue:
            batch.waiting.discard(self.peer)
        self._queue.clear()
        self._waiting = 0

    @property
    def is_heartbeat_due(self) -> bool:
        """Whether it is time for a sign of life, though nothing waits."""
        return not self._queue and self._clock.now_us() >= self._heartbeat_us

    def clock_set_back(self, now_us: int) -> None:
        """The clock was set back to ``now_us``: nothing waits until it is there again."""
        self.complete_after_us = min(self.complete_after_us, now_us)
        self._heartbeat_us = min(self._heartbeat_us, now_us)
        if self._failing_since_us is not None:
            self._failing_since_us = min(self._failing_since_us, now_us)

    def begin_again(self) -> None:
        """It is to be sent everything anew."""
        self.sweeping = True
        self.drop()

    def go_on(self, url: str, epoch: str) -> None:
        """Send what waits, or a sign of life where it is time for one, unless a message is under way."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._deliver(url, epoch))

    async def stop(self) -> None:
        """Give up what is under way."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    async def _deliver(self, url: str, epoch: str) -> None:
        try:
            while self.hand_back:
                of, back = next(iter(self.hand_back.items()))
                await self._send(url, self._counts(epoch, (), of=of, cells=tuple(back[:MAX_CELLS])), ())
                self._tally.handed_back_cells += len(back[:MAX_CELLS])
                del back[:MAX_CELLS]
                if not back:
                    self.hand_back.pop(of, None)
            probes = self._failing_since_us is not None or self._is_behind
            while self._queue or probes:
                probes = False
                batches = self._next()
                complete = batches[-1].complete if batches else {}
                answer = await self._send(url, self._counts(epoch, self._may_say(complete)), batches)
                self._answered(batches, answer)
        except UnreachablePeerError as error:
            self._failed(error)

    def _next(self) -> Sequence[Batch]:
        """As many of those that wait as one message takes."""
        found: list[Batch] = []
        number = 0
        for batch in self._queue:
            number += batch.news.number
            if found and number > MAX_CELLS:
                break
            found.append(batch)
        return found

    def _may_say(self, complete: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
        """What the peer may believe to know in full, by slice: nothing before it was sent everything once."""
        if self.sweeping:
            return ()
        return tuple((slice, as_of_us) for slice, as_of_us in complete.items() if as_of_us > self.complete_after_us)

    def _counts(
        self, epoch: str, complete: tuple[tuple[int, int], ...], *, of: str = "", cells: tuple[Cell, ...] = ()
    ) -> Counts:
        return Counts(
            region=self._own, incarnation=epoch, sent_at=self._clock.now_us() / 1e6, cells=cells, complete=complete,
            of=of, to=self.epoch or "",
        )  # fmt: skip

    async def _send(self, url: str, counts: Counts, batches: Sequence[Batch]) -> CountsAnswer:
        number = sum(batch.news.number for batch in batches)
        message = encode_counts(counts, [batch.news.cells for batch in batches], number)
        self._heartbeat_us = self._clock.now_us() + DEFAULT_TIMING.heartbeat_us
        self._tally.messages += 1
        answer = await self._transport.send(self.peer, url, message)
        self._tally.sent_cells += number + len(counts.cells)
        return answer

    def _answered(self, batches: Sequence[Batch], answer: CountsAnswer) -> None:
        was_away, is_new = self.is_away, self.epoch != answer.incarnation
        self._failing_since_us = None
        for batch in batches:
            batch.unplaced.update(answer.again)
            batch.waiting.discard(self.peer)
            if self._queue and self._queue[0] is batch:
                self._queue.popleft()
                self._waiting -= batch.news.number
        self.epoch = answer.incarnation
        if was_away or is_new or self._is_behind:
            self._is_behind = False
            log.info("peer_connected", peer=self.peer, new_epoch=is_new)
            self.begin_again()
            self._on_back()

    def _failed(self, error: UnreachablePeerError) -> None:
        self._tally.failures[self.peer] += 1
        if self._failing_since_us is None:
            log.warning("peer_lost", peer=self.peer, error=str(error))
            self._failing_since_us = self._clock.now_us()
        if self.is_away:
            self.begin_again()
            self.epoch = None
            self.hand_back.clear()  # read again when it is back
