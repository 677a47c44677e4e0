"""Counts between regions: what changed here is told to every peer (what peers tell: ``hearing``).

The counters of a region are divided into slices; the node that holds a slice's lease tells it. Messages carry absolute
counts, so any of them may be lost, doubled or late. What is unsent stays marked in the store until every peer that
answers has it; one that was away is told everything once when it is back, and what an earlier life of its store had
counted.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from contract.counts import MAX_CELLS, SLICES, Cell, Counts, CountsAnswer
from data_plane.domain.index import RuleIndex
from data_plane.domain.regions.keys import ToldLimits
from data_plane.domain.regions.messages import Ack, Tell
from data_plane.domain.regions.rules import ALL_RULES, DEFAULT_TIMING
from data_plane.domain.regions.telling import Marked, Teller
from data_plane.domain.subjects import limit_of_key
from data_plane.services.count_store import (
    CountStore,
    MarkedKey,
    PeerTransport,
    ReconcileTally,
    UnreachablePeerError,
)
from data_plane.services.due import due_of
from data_plane.services.hearing import Hearing
from data_plane.services.peer_line import PeerLine, cells_of
from data_plane.services.ports import Clock, StoreUnavailableError
from data_plane.services.sweep import Sweep

log = structlog.get_logger()

TICK_S = DEFAULT_TIMING.tick_us / 1e6
RESEND_US = 2 * DEFAULT_TIMING.tick_us
MAX_KNOWN = 100_000
"""Counters of which this node remembers what was told: those beyond are told a little more eagerly."""
CATCH_UP_US = 1_000_000


class Reconciler:
    """Tells peers. ``live_nodes`` says over how many nodes of the region that is divided."""

    def __init__(
        self, region: str, store: CountStore, transport: PeerTransport, clock: Clock, index: Callable[[], RuleIndex],
        live_nodes: Callable[[], int], hearing: Hearing, tally: ReconcileTally,
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._transport = transport
        self._clock = clock
        self._index = index
        self._limits = ToldLimits(index)
        self._live_nodes = live_nodes
        self._hearing = hearing
        self._lines: dict[str, PeerLine] = {}
        self._tellers: dict[int, Teller] = {}
        self._told: dict[bytes, tuple[int, int]] = {}
        self._due_before: dict[int, tuple[Sequence[Marked], Mapping[tuple[str, int], MarkedKey]]] = {}
        """What was due in the last tick: by now its answers are here."""
        self._incarnation = ""
        self._ticked_us = 0
        self._wake = asyncio.Event()
        """Set when a peer is back: it need not wait for the next tick."""
        self.tally = tally
        self._sweep = Sweep(region, store, clock, self._is_told, self._lines, tally)
        hearing.on_own_past = self._sweep.pass_on

    @property
    def slices(self) -> int:
        """How many slices this node tells."""
        return len(self._tellers)

    async def run(self) -> None:
        """Tick, for ever. A store that is away ends a tick, not the loop."""
        trouble: str | None = None
        while True:
            started_s = self._clock.now_us() / 1e6
            try:
                await self.tick()
                trouble = None
            except StoreUnavailableError as error:
                if error.reason != trouble:
                    log.warning("reconcile_tick_failed", reason=error.reason)
                trouble = error.reason
            took_s = self._clock.now_us() / 1e6 - started_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.02, TICK_S - took_s)):
                    await self._wake.wait()
            self._wake.clear()

    async def stop(self) -> None:
        """Give up what is being told."""
        tasks = [line.under_way for line in self._lines.values() if line.under_way is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def tick(self) -> None:
        """Look who is heard, unmark what every peer knows, then tell each what it has not been told."""
        urls, regions = self._hearing.peer_urls(), len(self._index().book.regions)
        has_marks = regions > 1  # also where no peer can be told: then they go at once
        if has_marks:
            await self._store.begin_life(self._region, regions, self._is_told)
        await self._hearing.look()
        if not has_marks:
            self._lines.clear()
            self._tellers.clear()
            return
        await self._meet(urls)
        await self._take_slices(urls)
        if not self._tellers:
            if any(line.hand_back for line in self._lines.values()):
                self._tell_all(urls, await self._store.incarnation(), {}, {}, self._clock.now_us())
            return
        incarnation = await self._store.incarnation()
        if self._incarnation not in {"", incarnation}:
            self._begin_again()
        self._incarnation = incarnation
        self._look_at_clock()
        await self._sweep.page(tuple(self._tellers))
        await self._settle()
        now_us = self._clock.now_us()
        due: dict[int, list[Marked]] = {}
        waiting_us: dict[int, int] = {}
        for number, marked in (await self._store.marked(tuple(self._tellers))).items():
            due[number], waiting_us[number] = self._due(marked.keys, now_us)
            if marked.rest_us:
                waiting_us[number] = min(waiting_us[number], marked.rest_us)
            keys = {(one.key.decode("latin-1"), 0): one for one in marked.keys}
            self._due_before[number] = due[number], keys
            self._tellers[number].forget(keys)
        self._tell_all(urls, incarnation, due, waiting_us, now_us)

    async def _settle(self) -> None:
        """Unmark what all peers have acknowledged, so that it is not looked at once more."""
        before, self._due_before = self._due_before, {}
        settled: dict[int, list[MarkedKey]] = {}
        for number, teller in self._tellers.items():
            due, keys = before.get(number, ((), {}))
            settled[number] = [keys[one.key, 0] for one in teller.settled(due, self._clock.now_us())]
        await self._store.settle(settled)

    async def _meet(self, urls: Mapping[str, str]) -> None:
        """Peers that came get a line; what is told to those that went need not be told any more."""
        for gone in (went := self._lines.keys() - urls.keys()):
            await self._store.note_told(gone, None)  # nothing is told to it from now on
            task = self._lines.pop(gone).under_way
            if task is not None:
                task.cancel()
        came = urls.keys() - self._lines.keys()
        for name in came:
            known = await self._store.told_life(name)
            self._lines[name] = PeerLine(incarnation=known, sweeping=known is None)
        if came or went:
            # Marks wait for those that a teller knows.
            self._tellers = {number: self._teller(number, urls) for number in self._tellers}
        if came:
            self._sweep.begin()

    def _teller(self, number: int, peers: Iterable[str]) -> Teller:
        return Teller(self._region, number, sorted(peers), DEFAULT_TIMING, ALL_RULES, RESEND_US)

    async def _take_slices(self, urls: Mapping[str, str]) -> None:
        """Hold our part of the slices; one that is new to this node is told once from beginning to end."""
        held = await self._store.hold_slices(-(-SLICES // max(1, self._live_nodes())))
        came = [number for number in held if number not in self._tellers]
        self._tellers = {number: self._tellers.get(number) or self._teller(number, urls) for number in held}
        if came:
            self._sweep.begin()

    def _begin_again(self) -> None:
        """The store came back as another life: everybody is told everything, what the one before had counted too."""
        for line in self._lines.values():
            line.sweeping = True
        self._tellers = {number: self._teller(number, self._lines) for number in self._tellers}
        self._sweep.begin()

    def _look_at_clock(self) -> None:
        """One that was set back would come to nothing that is due before it is there again: all is due anew."""
        before_us, self._ticked_us = self._ticked_us, self._clock.now_us()
        if self._ticked_us < before_us:
            self._tellers = {number: self._teller(number, self._lines) for number in self._tellers}
            self._sweep.no_later(self._ticked_us)
            for line in self._lines.values():
                line.complete_after_us = min(line.complete_after_us, self._ticked_us)

    def _is_told(self, key: bytes) -> bool:
        return limit_of_key(key) in self._index().book.told_by_id

    def _due(self, marked: Sequence[MarkedKey], now_us: int) -> tuple[list[Marked], int]:
        """Counters that it is time to tell of, and since when the oldest of the others waits."""
        # Who was away is told everything without delay.
        at_once = any(one.sweeping or now_us < one.complete_after_us + CATCH_UP_US for one in self._lines.values())
        return due_of(
            marked, lambda key: self._limits.of_key(key, now_us / 1e6), self._told, len(self._lines) + 1, now_us,
            at_once=at_once,
        )  # fmt: skip

    def _tell_all(
        self, urls: Mapping[str, str], incarnation: str, due: Mapping[int, Sequence[Marked]],
        waiting_us: Mapping[int, int], now_us: int,
    ) -> None:  # fmt: skip
        for name, url in urls.items():
            line = self._lines[name]
            if line.under_way is None or line.under_way.done():
                self._tell(name, url, line, incarnation, due, waiting_us, now_us)

    def _tell(
        self, name: str, url: str, line: PeerLine, incarnation: str, due: Mapping[int, Sequence[Marked]],
        waiting_us: Mapping[int, int], now_us: int,
    ) -> None:  # fmt: skip
        """One peer's part of a tick. One that is away gets a sign of life, and everything when it is back."""
        tells: list[Tell] = []
        for number, teller in self._tellers.items():
            if teller.is_away(name, now_us):
                tells.append(Tell(number, self._region, 0, 0, now_us))
                continue
            tell = teller.tell(name, 0, due[number], now_us, waiting_us[number])
            if tell is not None:
                tells.append(tell)
        if tells or line.hand_back:
            line.under_way = asyncio.create_task(self._deliver(name, url, line, incarnation, tells))

    async def _deliver(self, name: str, url: str, line: PeerLine, incarnation: str, tells: Sequence[Tell]) -> None:
        """Send what is due, in batches, and take the answers as acknowledgements."""
        cells = cells_of(tells)
        again: set[bytes] = set()
        now_us = self._clock.now_us()
        try:
            for life, back in list(line.hand_back.items()):
                while back:
                    await self._send(name, url, incarnation, back[:MAX_CELLS], of=life)
                    self.tally.handed_back_cells += len(back[:MAX_CELLS])
                    del back[:MAX_CELLS]
                del line.hand_back[life]
            batches = [cells[start : start + MAX_CELLS] for start in range(0, len(cells), MAX_CELLS)] or [[]]
            for batch in batches[:-1]:
                again.update((await self._send(name, url, incarnation, batch)).again)
            answer = await self._send(name, url, incarnation, batches[-1], line.complete(tells))
            again.update(answer.again)
        except UnreachablePeerError as error:
            self.tally.failures[name] += 1
            if line.connected:
                log.warning("peer_lost", peer=name, error=str(error))
            line.connected = False
            if line.incarnation is not None and any(teller.is_away(name, now_us) for teller in self._tellers.values()):
                line.incarnation = None
                line.hand_back.clear()  # read again when it is back
                await self._store.note_told(name, None)
            return
        self._answered(name, line, tells, answer, {(key.decode("latin-1"), 0) for key in again})

    async def _send(
        self, name: str, url: str, incarnation: str, cells: Sequence[Cell],
        complete: tuple[tuple[int, int], ...] = (), of: str = "",
    ) -> CountsAnswer:  # fmt: skip
        counts = Counts(
            region=self._region, incarnation=incarnation, sent_at=self._clock.now_us() / 1e6, cells=tuple(cells),
            complete=complete, of=of, to=self._lines[name].incarnation or "",
        )  # fmt: skip
        self.tally.messages += 1
        answer = await self._transport.send(name, url, counts)
        self.tally.sent_cells += len(cells)
        return answer

    def _answered(
        self, name: str, line: PeerLine, tells: Sequence[Tell], answer: CountsAnswer, again: set[tuple[str, int]]
    ) -> None:
        now_us = self._clock.now_us()
        was_away = is_new = line.incarnation != answer.incarnation
        for tell in tells:
            teller = self._tellers.get(tell.slice)
            if teller is not None:
                ack = Ack(tell.slice, name, 0, tell.sent_us)
                was_away = teller.acknowledged(ack, now_us, again) or was_away
            for one in tell.news:
                self._told[one.key.encode("latin-1")] = one.life[2], one.cell.taken - one.cell.returned
        while len(self._told) > MAX_KNOWN:
            del self._told[next(iter(self._told))]
        if is_new:
            # What its store knew is gone, and with it every acknowledgement.
            for number in self._tellers:
                self._tellers[number] = self._teller(number, self._lines)
        line.incarnation = answer.incarnation
        if was_away:
            log.info("peer_connected", peer=name, new_life=is_new)
            line.connected, line.sweeping = True, True
            self._sweep.begin()
            self._wake.set()
