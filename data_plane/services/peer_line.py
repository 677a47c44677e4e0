"""One peer, as the node that tells it knows it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from contract.counts import Cell
from data_plane.domain.regions.messages import Tell


@dataclass
class PeerLine:
    """This node's conversation with one peer, at most one message at a time."""

    incarnation: str | None = None
    under_way: asyncio.Task[None] | None = None
    connected: bool = False
    sweeping: bool = True
    """A peer that is new to this node, or was away, has not been told everything yet."""
    complete_after_us: int = 0
    """Once all marks older than this were told, it has."""
    hand_back: dict[str, list[Cell]] = field(default_factory=dict)

    @property
    def is_told_lives(self) -> bool:
        """Whether the peer is to be told of lives that are over; which of its own are only it can say."""
        return self.sweeping and self.incarnation is not None

    @property
    def waits_for_back(self) -> int:
        """Cells that wait to be handed back to it."""
        return sum(map(len, self.hand_back.values()))

    def complete(self, tells: Sequence[Tell]) -> tuple[tuple[int, int], ...]:
        """What the peer may believe to know in full, by slice: nothing before it was told everything once."""
        if self.sweeping:
            return ()
        return tuple((tell.slice, tell.complete_us) for tell in tells if tell.complete_us > self.complete_after_us)


def cells_of(tells: Sequence[Tell]) -> list[Cell]:
    """The news, as a message has them."""
    return [
        Cell(one.key.encode("latin-1"), one.life[2], one.cell.taken, one.cell.returned)
        for tell in tells
        for one in tell.news
    ]
