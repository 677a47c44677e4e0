"""Anti-entropy between regions: sends every counter again, page by page, whether or not it is marked.

It covers what marks miss: what a peer did not get while it was away, and the counts of ended epochs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from data_plane.replicate.count_store import TIMING, CountStore
from data_plane.replicate.peer_session import PeerSession, ReplicationTally
from data_plane.store.ports import Clock
from tidegate.contract.counts import MAX_CELLS, Cell

PAGES_A_TURN = 4
MAX_HAND_BACK = 10 * MAX_CELLS
"""Cells that may wait to be handed back to one peer; the sweep pauses beyond that."""


class AntiEntropy:
    """Sweeps over all counters: marks them for every session, and queues counts of ended epochs."""

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
        """Whether a sweep has pages left."""
        return self._cursor is not None

    def begin(self) -> None:
        """Start a sweep from the first counter, also while one is under way."""
        self._cursor = ""
        self._tally.sweeps += 1

    def clock_set_back(self, now_us: int) -> None:
        """Bring the next sweep forward after the clock was set back to ``now_us``."""
        self._next_us = min(self._next_us, now_us + TIMING.sweep_us)

    async def mark_pages(self, slices: Sequence[int]) -> None:
        """Mark the next pages of all counters of ``slices`` as due; the sender sends them with the rest."""
        now_us = self._clock.now_us()
        if not self._sessions or (self._cursor is None and now_us < self._next_us):
            return
        if self._cursor is None:
            self.begin()
        for _ in range(PAGES_A_TURN):
            if any(session.waiting_to_hand_back >= MAX_HAND_BACK for session in self._sessions.values()):
                return
            epochs = any(session.takes_ended_epochs for session in self._sessions.values())
            sweeps = self._tally.sweeps
            page = await self._store.sweep(self._cursor or "", slices, self._is_shared, epochs=epochs)
            if self._tally.sweeps != sweeps:
                continue  # begun anew meanwhile, for a peer that lacks the pages before this one
            self._queue_ended_epochs(page.epochs)
            self._cursor = page.cursor or None
            if self._cursor is None:
                self._next_us = now_us + TIMING.sweep_us
                self._end()
                return

    def _end(self) -> None:
        """All counters are marked: peers that answer have been sent everything once those are sent."""
        for session in self._sessions.values():
            if session.takes_ended_epochs:
                session.needs_everything, session.complete_after_us = False, self._clock.now_us()

    def _queue_ended_epochs(self, epochs: Mapping[str, Sequence[Cell]]) -> None:
        """Queue for each peer the counts of its own ended epochs, and of this region's."""
        for epoch, cells in epochs.items():
            for session in self._sessions.values():
                if session.takes_ended_epochs and self._may_lack(session, epoch):
                    session.hand_back.setdefault(epoch, []).extend(cells)

    def _may_lack(self, session: PeerSession, epoch: str) -> bool:
        """Whether a peer may lack counts of that epoch: one of this region's store, or an ended one of its own."""
        region, _, incarnation = epoch.partition("/")
        return region == self._region or (region == session.peer and incarnation != session.epoch)

    def forward(self, epoch: str, cells: Iterable[Cell]) -> None:
        """Send counts of an ended epoch that this region lacked to the peers that may lack them too.

        A peer returned counts of this region's store; or a message of a peer's ended epoch came after this region had
        handed that epoch back.
        """
        lacking = [session for session in self._sessions.values() if self._may_lack(session, epoch)]
        cells = list(cells) if lacking else []
        for session in lacking:
            if session.epoch is None:
                continue  # it is sent everything once it answers
            if session.waiting_to_hand_back < MAX_HAND_BACK:
                session.hand_back.setdefault(epoch, []).extend(cells)
            else:
                session.needs_everything = True
                self.begin()
