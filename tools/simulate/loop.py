"""An event loop in virtual time: no time passes but by waiting, and it waits for nothing but the next timer."""

import asyncio
from collections.abc import Sequence
from typing import Any


class RunawayError(Exception):
    """Events breed events: a world that would never end."""


class VirtualLoop(asyncio.BaseEventLoop):
    """``time()`` begins at 0. The same calls give the same order of events."""

    def __init__(self, most_turns: int = 5_000_000) -> None:
        super().__init__()
        self._now_s = 0.0
        self._turns_left = most_turns
        self._selector = self  # what BaseEventLoop asks for events, and for how long to wait

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def select(self, timeout: float | None) -> Sequence[Any]:
        """Pass the time until the next timer; there are no sockets. Raises ``RunawayError``."""
        self._turns_left -= 1
        if not self._turns_left:
            raise RunawayError("the world does not come to rest")
        if timeout is None:
            raise RuntimeError("everybody waits, and nobody for a time")
        if timeout > 0:
            self._now_s = max(self._now_s + timeout, self._scheduled[0].when())  # type: ignore[attr-defined]
        return ()

    def _process_events(self, event_list: Sequence[Any]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who must be woken."""
