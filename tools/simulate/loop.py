"""An event loop in virtual time: no time passes but by waiting, and it waits for nothing but the next timer."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

_RESOLUTION_S = 1e-9
"""Timers that are due this soon are due now."""
_MANY_TIMERS = 100


Call = Callable[..., object]


class RunawayError(Exception):
    """The world makes new events without end."""


class _Call(float):
    """Something to call, as a number: when. Heaps compare it in C, which is why it is no ``asyncio.TimerHandle``."""

    __slots__ = ("arguments", "call", "is_cancelled", "loop")

    call: Call
    arguments: tuple[object, ...]
    is_cancelled: bool
    loop: "VirtualLoop | None"
    """The loop in which it waits; ``None`` afterwards."""

    def cancel(self) -> None:
        """Do not call."""
        if not self.is_cancelled:
            self.is_cancelled = True
            if self.loop is not None:
                self.loop.cancelled += 1

    def cancelled(self) -> bool:
        """Whether it will not be called."""
        return self.is_cancelled

    def when(self) -> float:
        """Virtual seconds."""
        return float(self)


class VirtualLoop(asyncio.BaseEventLoop):
    """``time()`` begins at 0. The same calls give the same order of events.

    It is the part of ``BaseEventLoop`` that a world needs: no sockets, threads, or contexts of variables.
    """

    def __init__(self, most_turns: int = 5_000_000) -> None:
        super().__init__()
        self._now_s = 0.0
        self._turns_left = most_turns
        self._due: deque[_Call] = deque()
        self._timers: list[_Call] = []
        self.cancelled = 0
        """Of the timers."""

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    # Handles are the loop's own, and contexts are left out: typeshed wants both.

    def call_soon(self, callback: Call, *args: Any, **_: Any) -> Any:  # type: ignore[override]
        """Call in the next turn."""
        call = _Call()
        call.call, call.arguments, call.is_cancelled, call.loop = callback, args, False, None
        self._due.append(call)
        return call

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(self, when: float, callback: Call, *args: Any, **_: Any) -> Any:  # type: ignore[override]
        """Call at an instant."""
        call = _Call(when)
        call.call, call.arguments, call.is_cancelled, call.loop = callback, args, False, self
        heapq.heappush(self._timers, call)
        return call

    def call_later(self, delay: float, callback: Call, *args: Any, **_: Any) -> Any:  # type: ignore[override]
        """Call after some seconds."""
        return self.call_at(self._now_s + delay, callback, *args)

    def create_task(self, coro: Coroutine[Any, Any, Any], **_: Any) -> Any:  # type: ignore[override]
        """Begin with a task in the next turn."""
        return asyncio.Task(coro, loop=self)

    def _run_once(self) -> None:
        """One turn: pass the time if nothing is due, then make the calls that are due. Raises ``RunawayError``."""
        self._turns_left -= 1
        if not self._turns_left:
            raise RunawayError("the world does not come to rest")
        self._forget_cancelled()
        due, timers = self._due, self._timers
        if not due and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise RuntimeError("everybody waits, and nobody for a time")
            self._now_s = max(self._now_s, timers[0])
        now_s = self._now_s + _RESOLUTION_S
        while timers and timers[0] < now_s:
            call = heapq.heappop(timers)
            call.loop = None
            due.append(call)
        for _ in range(len(due)):
            call = due.popleft()
            if call.is_cancelled:
                continue
            try:
                call.call(*call.arguments)
            except Exception as error:  # noqa: BLE001 - as a loop of asyncio does
                self.call_exception_handler({"message": f"Exception in callback {call.call}", "exception": error})

    def _forget_cancelled(self) -> None:
        timers = self._timers
        if len(timers) > _MANY_TIMERS and self.cancelled > len(timers) / 2:
            self._timers = [timer for timer in timers if not timer.is_cancelled]
            heapq.heapify(self._timers)
            self.cancelled = 0
            return
        while timers and timers[0].is_cancelled:
            heapq.heappop(timers).loop = None
            self.cancelled -= 1
