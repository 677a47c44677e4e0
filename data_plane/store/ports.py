"""Ports: what the rooms need of the store, of peers and of the clock."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from data_plane.store.packing import Outcome, encode_check, outcomes_of


class UnreachablePeerError(Exception):
    """A peer region did not answer, or refused."""


class StoreUnavailableError(Exception):
    """The region's store did not answer in time, refused, or the circuit is open; ``reason`` is from a closed set."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CounterCheck(Protocol):
    """One decision as the store sees it: the counters of every limit that applies, and what each allows.

    ``keys[i]`` and ``params[i]`` belong together. ``packing.encode_rule`` makes ``params``, and ``encode_check``
    makes ``packed`` of them and the cost.
    """

    keys: Sequence[bytes]

    @property
    def params(self) -> Sequence[bytes]:
        """What each limit allows, packed."""
        ...

    @property
    def packed(self) -> bytes:
        """The whole check, packed."""
        ...

    @property
    def cost(self) -> int:
        """Units, the same from every limit."""
        ...

    def done(self, figures: Sequence[int], at: int, now_us: int) -> None:
        """The store has decided; called on the event loop, once, unless ``failed`` is. Must not raise.

        ``figures[0]`` is the store's clock in microseconds; from ``at`` on there are three numbers for each key, in
        order: remaining, reset_us and the wait, as in ``packing``. ``now_us`` is the node's clock.
        """
        ...

    def failed(self, error: StoreUnavailableError, now_us: int) -> None:
        """The store gave no answer. Must not raise."""
        ...


class CallbackCheck:
    """A ``CounterCheck`` that is answered by calling ``answered`` with the outcomes in the order of ``keys`` and the
    store's clock in microseconds, or with the error. By default nobody hears the answer.
    """

    __slots__ = ("_answered", "clocks_us", "cost", "keys", "params")

    def __init__(
        self,
        keys: Sequence[bytes],
        params: Sequence[bytes],
        cost: int,
        answered: Callable[[list[Outcome] | StoreUnavailableError, int], None] = lambda _answer, _now_us: None,
    ) -> None:
        self.keys = keys
        self.params = params
        self.cost = cost
        self.clocks_us: Sequence[int] = ()
        """The clock by which each key was decided, where they lie in several slots of a Cluster; else empty."""
        self._answered = answered

    @property
    def packed(self) -> bytes:
        """The whole check, packed."""
        return encode_check(self.cost, self.params)

    def done(self, figures: Sequence[int], at: int, _now_us: int) -> None:
        """The store has decided."""
        self._answered(outcomes_of(figures, at, len(self.keys)), figures[0])

    def failed(self, error: StoreUnavailableError, _now_us: int) -> None:
        """The store gave no answer."""
        self._answered(error, 0)


class CounterStore(Protocol):
    """The region's counters. A check is all or nothing: if an enforced limit denies, none is consumed."""

    def submit(self, check: CounterCheck) -> None:
        """Decide ``check`` as soon as possible and call its ``done`` or ``failed``; returns at once."""
        ...

    def submit_all(self, checks: Sequence[CounterCheck]) -> None:
        """The same for many at once, in order."""
        ...


class Clock(Protocol):
    """The node's wall clock."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        ...


class RightsReader(Protocol):
    """Reads what outcomes of strict limits report beside the decision."""

    def understood(
        self, places: Sequence[int], keys: Sequence[bytes], params: Sequence[bytes], cost: int, outcomes: list[Outcome]
    ) -> list[Outcome]:
        """The outcomes without it; ``places`` are the positions of such limits, ``cost`` is the check's."""
        ...


Argument = bytes | str | int | float
Reply = Any
"""What a command answers depends on the command."""


class ScriptCall(NamedTuple):
    """A script with keys and arguments; it must bear to run twice."""

    source: str
    keys: Sequence[bytes]
    arguments: Sequence[Argument]


class RegionStore(Protocol):
    """The store apart from decisions: ``RedisCounterStore`` and the simulator's store implement it.

    Every method that asks the store raises ``StoreUnavailableError``.
    """

    settings: Any
    """``shape`` is ``cluster`` where a script may name keys of one slot only."""

    async def execute(self, *args: Argument) -> Reply:
        """One command."""
        ...

    async def execute_all(self, commands: Sequence[Sequence[Argument] | ScriptCall]) -> list[Reply]:
        """Many commands and scripts in one round trip; beside a script they must bear to run twice too."""
        ...

    async def call_script(self, source: str, keys: Sequence[bytes], args: Sequence[Argument]) -> Reply:
        """One script; it must bear to run twice."""
        ...

    async def scan(self, cursor: str, pattern: str, count: int) -> tuple[str, list[bytes]]:
        """A page of all keys; the cursor '' begins, and ends."""
        ...

    async def info(self) -> Sequence[Mapping[str, Any]]:
        """``INFO`` of every server that holds counters."""
        ...

    def dirty_key_beside(self, key: bytes) -> bytes:
        """The dirty key that a script may name together with this key, and mark."""
        ...

    def slot_key_beside(self, key: bytes) -> bytes:
        """The same, for scripts that mark nothing."""
        ...

    def dirty_key_of_slot(self, slot: int) -> bytes:
        """The dirty key of a slot."""
        ...

    def take_touched(self) -> set[int]:
        """The slots of a Cluster that this process may have marked since this was last asked."""
        ...
