"""What the use cases need from the outside world, named by role. Adapters in ``adapters/`` are named by technology."""

from collections.abc import Callable, Sequence
from typing import Protocol

from data_plane.domain.outcome import Outcome


class StoreUnavailableError(Exception):
    """The region's store did not answer in time, refused, or the circuit is open; ``reason`` is from a closed set."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CounterCheck(Protocol):
    """One decision as the store sees it: the counters of every limit that applies, and what each allows.

    ``keys[i]`` and ``params[i]`` belong together; ``params`` come from ``domain.wire.encode_rule``.
    """

    keys: Sequence[bytes]
    params: Sequence[bytes]
    cost: int

    def done(self, answer: list[Outcome] | StoreUnavailableError, store_now_us: int) -> None:
        """Called exactly once, on the event loop: the outcomes in the order of ``keys`` and the store's clock in
        microseconds, or the error. Must not raise.
        """
        ...


class CallbackCheck:
    """A ``CounterCheck`` that is answered by calling ``done``."""

    __slots__ = ("cost", "done", "keys", "params")

    def __init__(
        self,
        keys: Sequence[bytes],
        params: Sequence[bytes],
        cost: int,
        done: Callable[[list[Outcome] | StoreUnavailableError, int], None],
    ) -> None:
        self.keys = keys
        self.params = params
        self.cost = cost
        self.done = done


class CounterStore(Protocol):
    """The region's counters. A check is all or nothing: if an enforced limit denies, none is consumed."""

    def submit(self, check: CounterCheck) -> None:
        """Decide ``check`` as soon as possible and call its ``done``; returns at once."""
        ...


class Clock(Protocol):
    """The node's wall clock."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        ...
