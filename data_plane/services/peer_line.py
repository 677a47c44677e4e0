"""One peer, as the node that tells it knows it."""

import asyncio
from collections.abc import Mapping, Sequence
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


def is_told_lives(line: PeerLine) -> bool:
    """Whether the peer is to be told of lives that are over; which of its own are only it can say."""
    return line.sweeping and line.incarnation is not None


def hand_out(lives: Mapping[str, Sequence[Cell]], own: str, lines: Mapping[str, PeerLine]) -> None:
    """What a sweep found of lives that are over: a peer gets its own back, and what it was not told of ours."""
    for life, cells in lives.items():
        region, _, incarnation = life.partition("/")
        for name, line in lines.items():
            is_its = region == name and incarnation != line.incarnation
            if is_told_lives(line) and (is_its or region == own):
                line.hand_back.setdefault(life, []).extend(cells)
