"""Anti-entropy between regions: every counter is sent again, page by page, whatever was sent before.

It finds what marks alone would not tell: what a peer that was away has missed, and what earlier epochs of stores had
counted.
"""

from collections.abc import Callable, Mapping, Sequence

from data_plane.replicate.count_store import CountStore
from data_plane.replicate.peer_session import PeerSession
from data_plane.replicate.tally import ReplicationTally
from data_plane.replicate.timing import DEFAULT_TIMING
from data_plane.store.ports import Clock
from tidegate.contract.counts import MAX_CELLS, Cell

EVERY_US = DEFAULT_TIMING.sweep_us
"""At least this often everything is sent again, slowly."""
PAGES_A_TURN = 4
MAX_HAND_BACK = 10 * MAX_CELLS
"""Cells that wait to be handed back to one peer: then the sweep that finds them waits."""


class AntiEntropy:
    """Marks counters anew for everybody in ``sessions``, and finds out what each of them is handed back."""

    def __init__(
        self, region: str, store: CountStore, clock: Clock, is_shared: Callable[[bytes], bool],
        sessions: Mapping[str, PeerSession], tally: ReplicationTally,
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._clock = clock
        self._is_shared = is_shared
        self._sessions = sessions
        self._tally = tally
        self._cursor: str | None = ""
        """Where the next page begins; ``None`` between two sweeps."""
        self._next_us = 0

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
        self._next_us = min(self._next_us, now_us + EVERY_US)

    async def turn(self, slices: Sequence[int]) -> None:
        """Mark the next pages of all counters of ``slices`` as due; they are sent with the rest."""
        now_us = self._clock.now_us()
        if not self._sessions or (self._cursor is None and now_us < self._next_us):
            return
        if self._cursor is None:
            self.begin()
        for _ in range(PAGES_A_TURN):
            if any(session.waits_for_back >= MAX_HAND_BACK for session in self._sessions.values()):
                return  # who is handed something back takes it slowly
            epochs = any(session.hears_of_epochs for session in self._sessions.values())
            page = await self._store.sweep(self._cursor or "", slices, self._is_shared, epochs=epochs)
            self._hand_out(page.epochs)
            self._cursor = page.cursor or None
            if self._cursor is None:
                self._next_us = now_us + EVERY_US
                await self._ended()
                return

    async def _ended(self) -> None:
        """All is marked: whoever answers has been sent everything once that is sent."""
        for name, session in self._sessions.items():
            if session.hears_of_epochs:
                session.sweeping, session.complete_after_us = False, self._clock.now_us()
                session.is_noted = True
                await self._store.note_told(name, session.epoch)

    def _hand_out(self, epochs: Mapping[str, Sequence[Cell]]) -> None:
        """What was found of epochs that are over: a peer gets its own back, and what it was not sent of ours."""
        for epoch, cells in epochs.items():
            region, _, incarnation = epoch.partition("/")
            for name, session in self._sessions.items():
                is_its = region == name and incarnation != session.epoch
                if session.hears_of_epochs and (is_its or region == self._region):
                    session.hand_back.setdefault(epoch, []).extend(cells)

    def pass_on(self, epoch: str, cells: Sequence[Cell]) -> None:
        """A peer returned counts of ours that we had lost; other peers may lack them too, so forward them."""
        for session in self._sessions.values():
            if session.epoch is None:
                continue  # it is sent everything once it answers
            if session.waits_for_back < MAX_HAND_BACK:
                session.hand_back.setdefault(epoch, []).extend(cells)
            else:
                session.sweeping = True
                self.begin()
