"""The sweep between regions (anti-entropy): every counter is told again, page by page, whatever was told before.

It finds what marks alone would not tell: counters that are new to this node, what a peer that was away has missed, and
what lives of stores that are over had counted.
"""

from collections.abc import Callable, Mapping, Sequence

from contract.counts import MAX_CELLS, Cell
from data_plane.domain.regions.rules import DEFAULT_TIMING
from data_plane.services.count_store import CountStore, ReconcileTally
from data_plane.services.peer_line import PeerLine
from data_plane.services.ports import Clock

EVERY_S = DEFAULT_TIMING.sweep_us / 1e6
"""At least this often everything is told again, slowly."""
MAX_HAND_BACK = 10 * MAX_CELLS
"""Cells that wait to be handed back to one peer: then the sweep that finds them waits."""


class Sweep:
    """Marks counters anew for everybody in ``lines``, and finds out what each of them is handed back."""

    def __init__(
        self, region: str, store: CountStore, clock: Clock, is_told: Callable[[bytes], bool],
        lines: Mapping[str, PeerLine], tally: ReconcileTally,
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._clock = clock
        self._is_told = is_told
        self._lines = lines
        self._tally = tally
        self._cursor: str | None = ""
        """Where the next page begins; ``None`` between two sweeps."""
        self._next_s = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether pages are left; else it waits until it is time again."""
        return self._cursor is not None

    def begin(self) -> None:
        """From the first counter on, also where it was under way."""
        self._cursor = ""
        self._tally.sweeps += 1

    def no_later(self, now_us: int) -> None:
        """The clock was set back to ``now_us``: the next sweep does not wait until it is there again."""
        self._next_s = min(self._next_s, now_us / 1e6 + EVERY_S)

    async def page(self, slices: Sequence[int]) -> None:
        """Mark the next page of all counters of ``slices`` that peers are told of; they are told with the rest."""
        if not self._lines:
            return
        now_s = self._clock.now_us() / 1e6
        if self._cursor is None:
            if now_s < self._next_s:
                return
            self.begin()
        if any(line.waits_for_back >= MAX_HAND_BACK for line in self._lines.values()):
            return  # who is handed something back takes it slowly
        lives = any(line.is_told_lives for line in self._lines.values())
        page = await self._store.sweep(self._cursor or "", slices, self._is_told, lives=lives)
        self._hand_out(page.lives)
        self._cursor = page.cursor or None
        if self._cursor is None:
            self._next_s = now_s + EVERY_S
            await self._ended()

    async def _ended(self) -> None:
        """All is marked: whoever answers has been told everything once that is sent."""
        for name, line in self._lines.items():
            if line.is_told_lives:
                line.sweeping, line.complete_after_us = False, self._clock.now_us()
                await self._store.note_told(name, line.incarnation)

    def _hand_out(self, lives: Mapping[str, Sequence[Cell]]) -> None:
        """What was found of lives that are over: a peer gets its own back, and what it was not told of ours."""
        for life, cells in lives.items():
            region, _, incarnation = life.partition("/")
            for name, line in self._lines.items():
                is_its = region == name and incarnation != line.incarnation
                if line.is_told_lives and (is_its or region == self._region):
                    line.hand_back.setdefault(life, []).extend(cells)

    def pass_on(self, life: str, cells: Sequence[Cell]) -> None:
        """One peer knew more of an earlier life of our store than we did: so others may not, whom we alone tell."""
        for line in self._lines.values():
            if line.incarnation is None:
                continue  # it is told everything once it answers
            if line.waits_for_back < MAX_HAND_BACK:
                line.hand_back.setdefault(life, []).extend(cells)
            else:
                line.sweeping = True
                self.begin()
