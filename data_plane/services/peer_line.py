"""One peer, as the node that tells it knows it."""

import asyncio
from dataclasses import dataclass, field

from contract.counts import Cell


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
