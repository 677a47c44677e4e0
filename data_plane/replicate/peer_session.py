"""One peer as its sender sees it: a queue of cells, sent in order, one message at a time, over HTTP."""

import asyncio
import ssl
import struct
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import aiohttp
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_plane.process import HTTP_ERRORS, HttpClient, bounded_body
from data_plane.replicate.count_store import TIMING, PackedCells
from data_plane.store.ports import Clock, UnreachablePeerError
from tidegate.contract.counts import MAX_CELLS, Cell, Counts, CountsAnswer, signed_counts
from tidegate.contract.credentials import is_signed_by
from tidegate.contract.decoding import UNREADABLE, inflated
from tidegate.contract.rights import RIGHTS_VERSION, Asks, Gifts, signed_asks, signed_gifts

log = structlog.get_logger()

MAX_WAITING = 20 * MAX_CELLS
"""Cells that may wait for one peer; beyond that its queue is dropped and it is sent everything again."""
TIMEOUT_S = 1.5
MAX_ANSWER_BYTES = 1024 * 1024
MAX_UNPACKED_BYTES = 1024 * 1024
_counts_answer = msgspec.json.Decoder(CountsAnswer)
_gifts = msgspec.msgpack.Decoder(Gifts)
_ARRAY = struct.Struct(">BI")
"""How MessagePack begins an array of so many."""


class PeerTransport(Protocol):
    """The way to another region's agents."""

    async def send(self, to_region: str, url: str, message: bytes) -> CountsAnswer:
        """Deliver one message (``encode_counts``). Raises ``UnreachablePeerError``."""
        ...


class ReplicationTally:
    """What this process replicated since its start."""

    def __init__(self) -> None:
        self.sent_cells = 0
        self.messages = 0
        self.failures: Counter[str] = Counter()
        self.handed_back_cells = 0
        self.sweeps = 0
        self.over = 0
        """Merges that found a counter over its limit."""
        self.most_over = 0
        """The most units over a limit that a merge found."""
        self.implausible = 0
        self.repeated = 0
        """Messages received again: replayed, or doubled on the way."""
        self.silences: Counter[str] = Counter()
        """How often each peer became unreachable, so that its share was reserved."""


@dataclass
class CellBatch:
    """Cells of one collection, on their way to every peer in ``waiting``.

    ``complete`` is by slice the instant (the sender's clock) up to which a peer has all counts once it has this batch
    and those before. ``unplaced`` are counters that some peer could not place.
    """

    cells: PackedCells
    complete: Mapping[int, int]
    waiting: set[str]
    unplaced: set[bytes] = field(default_factory=set)


class Unplaced(NamedTuple):
    """Cells of an ended epoch that the peer could not place. They are sent again at ``due_us``, ``waits_us`` after
    they were sent last.
    """

    due_us: int
    waits_us: int
    epoch: str
    cells: tuple[Cell, ...]


class PeerSession:
    """Sends to one peer. ``on_connected`` is called when the peer answers after an absence, or in a new epoch."""

    def __init__(
        self, own: str, peer: str, transport: PeerTransport, clock: Clock, tally: ReplicationTally,
        on_connected: Callable[[], None],
    ) -> None:  # fmt: skip
        self.peer = peer
        self.own_epoch = ""
        """The epoch of this region's store in which the queued cells were counted; every message names it."""
        self.epoch: str | None = None
        """The epoch of the peer's store, from its last answer; ``None`` before the first and while it is away."""
        self.needs_everything = True
        """Whether the peer has yet to be sent everything: it is new to this agent, or was away."""
        self.is_noted_as_sent: bool | None = None
        """What the store says of the slices that this agent holds, for the agent that sends them next, if known."""
        self.complete_after_us = 0
        """The peer has been sent everything once all cells older than this are sent."""
        self.hand_back: dict[str, list[Cell]] = {}
        """Counts of ended epochs that the peer is sent, by epoch."""
        self._unplaced: list[Unplaced] = []
        self._own = own
        self._transport = transport
        self._clock = clock
        self._tally = tally
        self._on_connected = on_connected
        self._queue: deque[CellBatch] = deque()
        self._waiting = 0
        self._under_way: asyncio.Task[None] | None = None
        self._heartbeat_us = 0
        self._failing_since_us: int | None = None
        self._is_behind = False
        """Whether the queue overflowed: the peer is sent everything once it answers."""

    @property
    def is_away(self) -> bool:
        """Whether the peer has not answered for so long that nothing is queued for it."""
        since_us = self._failing_since_us
        return since_us is not None and self._clock.now_us() - since_us > TIMING.stale_after_us

    @property
    def has_full_message(self) -> bool:
        """Whether the queue fills a message."""
        return self._waiting >= MAX_CELLS

    @property
    def takes_ended_epochs(self) -> bool:
        """Whether to send counts of ended epochs; only an answer tells which of the peer's epochs have ended."""
        return self.needs_everything and self.epoch is not None and not self._is_behind and not self.is_away

    @property
    def is_sent_everything(self) -> bool:
        """Whether nothing that the peer lacks is known to this agent alone; cells that wait have marks in the store."""
        return not self.needs_everything and not self.hand_back and not self._unplaced

    @property
    def waiting_to_hand_back(self) -> int:
        """Number of cells that wait to be handed back."""
        return sum(map(len, self.hand_back.values()))

    @property
    def is_heartbeat_due(self) -> bool:
        """Whether to send a message without cells."""
        return not self._queue and self._clock.now_us() >= self._heartbeat_us

    def add(self, batch: CellBatch) -> None:
        """Queue a batch; a peer that is away or behind is sent everything later instead."""
        if self._waiting > MAX_WAITING:
            self._is_behind = True
        if self._is_behind or self.is_away:
            self.resend_everything()
            batch.waiting.discard(self.peer)
            return
        self._queue.append(batch)
        self._waiting += batch.cells.number

    def drop_queue(self) -> None:
        """Take this peer off every queued batch."""
        for batch in self._queue:
            batch.waiting.discard(self.peer)
        self._queue.clear()
        self._waiting = 0

    def clock_set_back(self, now_us: int) -> None:
        """Bring all instants forward after the clock was set back to ``now_us``."""
        self.complete_after_us = min(self.complete_after_us, now_us)
        self._heartbeat_us = min(self._heartbeat_us, now_us)
        if self._failing_since_us is not None:
            self._failing_since_us = min(self._failing_since_us, now_us)
        self._unplaced = [one._replace(due_us=min(one.due_us, now_us + one.waits_us)) for one in self._unplaced]

    def resend_everything(self) -> None:
        """Drop the queue; the next sweep sends everything."""
        self.needs_everything = True
        self._unplaced.clear()
        self.drop_queue()

    def send_queue(self, url: str) -> None:
        """Start to send what waits, unless a message is under way."""
        waits = self._queue or self.hand_back or self._due_again or self._needs_probe
        if waits and (self._under_way is None or self._under_way.done()):
            self._under_way = asyncio.create_task(self._deliver(url))

    async def stop(self) -> None:
        """Cancel the message that is under way."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    async def _deliver(self, url: str) -> None:
        try:
            while self.hand_back:
                ended, cells = next(iter(self.hand_back.items()))
                sent = tuple(cells[:MAX_CELLS])
                await self._send_ended_epoch(url, ended, sent, TIMING.lazy_us)
                del cells[: len(sent)]  # others may have joined meanwhile
                if not cells:
                    self.hand_back.pop(ended, None)
            for late in self._due_again:
                await self._send_ended_epoch(url, late.epoch, late.cells, 2 * late.waits_us)
                self._unplaced = [one for one in self._unplaced if one is not late]
            probes = self._needs_probe
            while self._queue or probes:
                probes = False
                batches = self._next_message()
                complete = batches[-1].complete if batches else {}
                answer = await self._send(url, self._counts(self._complete_slices(complete)), batches)
                self._acknowledge(batches, answer)
        except UnreachablePeerError as error:
            self._fail(error)

    @property
    def _due_again(self) -> Sequence[Unplaced]:
        """What the peer could not place, and is to be sent again now."""
        now_us = self._clock.now_us()
        return [one for one in self._unplaced if one.due_us <= now_us]

    async def _send_ended_epoch(self, url: str, ended: str, cells: tuple[Cell, ...], waits_us: int) -> None:
        """Send counts of an ended epoch. What the peer cannot place is sent again after ``waits_us``, then ever later.

        After a sweep's time, and where too much waits, it is left to the sweep after the peer's next absence.
        """
        answer = await self._send(url, self._counts((), of=ended, cells=cells), ())
        self._tally.handed_back_cells += len(cells)
        again = set(answer.again)
        unplaced = tuple(cell for cell in cells if cell.key in again)
        has_room = sum(len(one.cells) for one in self._unplaced) < MAX_WAITING
        if unplaced and has_room and waits_us < TIMING.sweep_us:
            self._unplaced.append(Unplaced(self._clock.now_us() + waits_us, waits_us, ended, unplaced))

    @property
    def _needs_probe(self) -> bool:
        """Whether to send a message even without cells: only an answer shows that the peer is back."""
        return self._failing_since_us is not None or self._is_behind

    def _next_message(self) -> Sequence[CellBatch]:
        """The first batches of the queue that fit into one message."""
        found: list[CellBatch] = []
        number = 0
        for batch in self._queue:
            number += batch.cells.number
            if found and number > MAX_CELLS:
                break
            found.append(batch)
        return found

    def _complete_slices(self, complete: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
        """Slices that the peer then has in full, with the instant; none before it was sent everything once."""
        if self.needs_everything:
            return ()
        return tuple((slice, as_of_us) for slice, as_of_us in complete.items() if as_of_us > self.complete_after_us)

    def _counts(self, complete: tuple[tuple[int, int], ...], *, of: str = "", cells: tuple[Cell, ...] = ()) -> Counts:
        return Counts(
            region=self._own, incarnation=self.own_epoch, sent_at=self._clock.now_us() / 1e6, cells=cells,
            complete=complete, of=of, to=self.epoch or "",
        )  # fmt: skip

    async def _send(self, url: str, counts: Counts, batches: Sequence[CellBatch]) -> CountsAnswer:
        number = sum(batch.cells.number for batch in batches)
        message = encode_counts(counts, [batch.cells.packed for batch in batches], number)
        self._heartbeat_us = self._clock.now_us() + TIMING.heartbeat_us
        self._tally.messages += 1
        answer = await self._transport.send(self.peer, url, message)
        self._tally.sent_cells += number + len(counts.cells)
        return answer

    def _acknowledge(self, batches: Sequence[CellBatch], answer: CountsAnswer) -> None:
        was_away, is_new = self.is_away, self.epoch != answer.incarnation
        self._failing_since_us = None
        for batch in batches:
            batch.unplaced.update(answer.again)
            batch.waiting.discard(self.peer)
            if self._queue and self._queue[0] is batch:
                self._queue.popleft()
                self._waiting -= batch.cells.number
        self.epoch = answer.incarnation
        if was_away or is_new or self._is_behind:
            self._is_behind = False
            log.info("peer_connected", peer=self.peer, new_epoch=is_new)
            self.resend_everything()
            self._on_connected()

    def _fail(self, error: UnreachablePeerError) -> None:
        self._tally.failures[self.peer] += 1
        if self._failing_since_us is None:
            log.warning("peer_lost", peer=self.peer, error=str(error))
            self._failing_since_us = self._clock.now_us()
        if self.is_away:
            self.resend_everything()
            self.epoch = None
            self.hand_back.clear()  # the sweep after its return reads them again


def encode_counts(counts: Counts, cells: Sequence[bytes] = (), number: int = 0) -> bytes:
    """A message as it travels. In place of its cells it may have ``number`` of them that are MessagePack already."""
    if number:
        packed = msgspec.Raw(b"".join((_ARRAY.pack(0xDD, number), *cells)))
        counts = msgspec.structs.replace(counts, cells=packed)
    return msgspec.msgpack.encode(counts)


class HttpPeers:
    """Implements ``PeerTransport`` and ``RightsTransport`` over one pooled client. Each call is one try; callers retry.

    ``public_keys`` returns a region's current keys (hex). Without ``tls`` servers need certificates of a public CA.
    """

    def __init__(
        self, region: str, key: Ed25519PrivateKey, public_keys: Callable[[str], Sequence[str]],
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._region = region
        self._key = key
        self._public_keys = public_keys
        self._client = HttpClient(aiohttp.ClientTimeout(total=TIMEOUT_S), tls)
        self.sent_bytes = 0
        self.received_bytes = 0
        self.messages = 0

    async def send(self, to_region: str, url: str, message: bytes) -> CountsAnswer:
        """Deliver one message of counts."""
        body = zlib.compress(message, level=1)
        answer, _ = await self._post(url, "/internal/v1/counts", body, signed_counts(to_region, body))
        try:
            return _counts_answer.decode(answer)
        except UNREADABLE as error:
            raise UnreachablePeerError(f"{type(error).__name__}: {error}") from error

    async def ask(self, to_region: str, url: str, asks: Asks) -> Gifts:
        """Ask for rights. Returns the region's answer, its signature verified."""
        body = zlib.compress(msgspec.msgpack.encode(asks), level=1)
        answer, headers = await self._post(url, "/internal/v1/rights", body, signed_asks(to_region, body))
        try:
            signature = bytes.fromhex(headers.get("x-tidegate-signature", ""))
            if not is_signed_by(self._public_keys(to_region), signature, signed_gifts(self._region, body, answer)):
                raise UnreachablePeerError("an answer's signature is wrong")
            gifts = _gifts.decode(inflated(answer, MAX_UNPACKED_BYTES))
        except (ValueError, *UNREADABLE) as error:
            raise UnreachablePeerError(f"{type(error).__name__}: {error}") from error
        wrong = gifts.region != to_region or gifts.to_incarnation != asks.incarnation
        if wrong or gifts.version != RIGHTS_VERSION:
            raise UnreachablePeerError("an answer does not match the request")
        return gifts

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _post(self, url: str, path: str, body: bytes, signed: bytes) -> tuple[bytes, Mapping[str, str]]:
        headers = {
            "content-type": "application/octet-stream",
            "x-tidegate-region": self._region,
            "x-tidegate-signature": self._key.sign(signed).hex(),
        }
        self.messages += 1
        self.sent_bytes += len(body)
        try:
            async with self._client.request("POST", url.rstrip("/") + path, data=body, headers=headers) as response:
                if response.status != 200:
                    raise UnreachablePeerError(f"answered {response.status}")
                answer = await bounded_body(response, MAX_ANSWER_BYTES)
                if answer is None:
                    raise UnreachablePeerError(f"answered more than {MAX_ANSWER_BYTES} bytes")
        except HTTP_ERRORS as error:
            raise UnreachablePeerError(f"{type(error).__name__}: {error}") from error
        self.received_bytes += len(answer)
        return answer, response.headers
