"""What moving rights needs: steps on counters in the region's store, and the way to other regions."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from data_plane.config.limits_of_keys import StrictLimit
from data_plane.config.strict_limits import most_units, quanta_in_unit
from data_plane.store.packing import Outcome
from data_plane.store.ports import CallbackCheck, CounterStore, StoreUnavailableError
from data_plane.store.rights_messages import NOTHING
from data_plane.store.rights_messages import Gift as Total
from data_plane.store.strict_packing import is_refused
from tidegate.contract.rights import Ask, Asks, Gift, Gifts, is_sayable


class Question(NamedTuple):
    """What a node asks of a peer about one counter."""

    key: bytes
    limit: StrictLimit
    ask: Ask
    cost: int
    """What the request wants that there was too little for."""


class RightsTransport(Protocol):
    """The way to another region's nodes."""

    async def ask(self, to_region: str, url: str, asks: Asks) -> Gifts:
        """Put questions. Raises ``UnreachablePeerError``."""
        ...


MAX_HELD = 10_000
"""Counters whose rights a node remembers for its figures."""
HELD_US = 60_000_000
"""Rights that were seen longer ago are no figure any more."""


class RightsTally:
    """Counts since the start of the process, by peer."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.units_received: Counter[str] = Counter()
        self.units_given: Counter[str] = Counter()
        self.questions: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Steps that the store's marker refused, and gifts that nobody can have had to give."""
        self._held: dict[bytes, tuple[str, int, int]] = {}

    def hold(self, key: bytes, limit: str, units: int, now_us: int) -> None:
        """A counter of this limit holds ``units`` of rights (buckets: of capacity), as seen on moving some."""
        if key not in self._held and len(self._held) >= MAX_HELD:
            self._held.clear()
        self._held[key] = (limit, units, now_us)

    def held(self, now_us: int) -> Counter[str]:
        """Units by limit, of counters that were asked for in the last minute (here, or by a peer), as last seen."""
        total: Counter[str] = Counter()
        for limit, units, seen_us in self._held.values():
            if seen_us > now_us - HELD_US:
                total[limit] += units
        return total


class RightsSteps:
    """Steps ride in the same calls as decisions."""

    def __init__(self, store: CounterStore, tally: RightsTally) -> None:
        self._store = store
        self._tally = tally

    async def take(self, key: bytes, items: Sequence[bytes], cost: int = 0) -> list[Outcome] | None:
        """Do steps on one counter, all in one script; ``None`` where the store's marker refuses this node.

        ``cost`` is what the request wants that rights are moved for.
        """
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

        def answered(answer: list[Outcome] | StoreUnavailableError, _now_us: int) -> None:
            if future.done():
                return
            if isinstance(answer, StoreUnavailableError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self._store.submit(CallbackCheck([key] * len(items), items, cost, answered))
        outcomes = await future
        if is_refused(outcomes):
            self._tally.refused["marker"] += 1
            return None
        return outcomes


def is_plausible(question: Question, gifts: Gifts, gift: Gift) -> bool:
    """Whether anybody can have had what is new in a gift: all that was ever given may be more, rights come and go."""
    ask, limit = question.ask, question.limit
    known = Total(ask.units, ask.quanta) if gifts.incarnation == ask.to_incarnation else NOTHING
    units, quanta = gift.units - known.units, gift.quanta - known.quanta
    is_new = units <= most_units(limit.rule) and 0 <= quanta <= max(0, units) * quanta_in_unit(limit.rule)
    # What is older than what is known is a late answer: the store takes nothing of it.
    return is_sayable(gift) and gift.id == ask.id and (is_new or units <= 0)
