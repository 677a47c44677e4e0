"""Ends enforcement overrides at their time: the node takes them out of the index in force by itself."""

import asyncio
from typing import Any

import msgspec

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Snapshot
from data_plane.decide.decider import Decider
from data_plane.store.ports import Clock

LOOK_EVERY_S = 1.0
"""The longest sleep, because the clock may be set meanwhile."""


class OverrideKeeper:
    """Keeps ended overrides out of the decider's index."""

    def __init__(self, decider: Decider, clock: Clock) -> None:
        self._decider = decider
        self._clock = clock
        self._changed = asyncio.Event()

    def applied(self, _index: RuleIndex, _snapshot: Snapshot) -> None:
        """Look at the overrides of the index that the decider has just got, before its first decision."""
        self.end_now()
        self._changed.set()

    async def run(self) -> None:
        """End each override at its time, for ever."""
        while True:
            self._changed.clear()
            ends_s = [
                override.expires_at for override in self._decider.index.book.overrides.values() if override.expires_at
            ]
            timeout_s = None
            if ends_s:
                timeout_s = min(LOOK_EVERY_S, max(0.001, min(ends_s) - self._clock.now_us() / 1_000_000))
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                self.end_now()

    def end_now(self) -> None:
        """Take out the overrides that have ended."""
        index = self._decider.index
        self._decider.index = index.without_ended_overrides(self._clock.now_us() / 1_000_000)


def overrides_and_blocks(index: RuleIndex, now_us: int) -> dict[str, Any]:
    """The overrides in force and the number of blocks, for ``/v1/status``."""
    blocks = 0 if index.blocks is None else index.blocks.in_force(now_us / 1_000_000)
    return {
        "enforcement": [msgspec.to_builtins(override) for override in index.book.overrides.values()],
        "blocks": blocks,
    }
