"""What a transfer of rights is made of: a request, the way to a peer, a gift that can be true; and their counts."""

from collections import Counter
from typing import NamedTuple, Protocol

from data_plane.config.limits_of_keys import StrictLimit
from data_plane.config.strict_limits import most_units, quanta_in_unit
from data_plane.store.strict_packing import NOTHING, Total
from tidegate.contract.rights import Ask, Asks, Gift, Gifts, is_sayable


class RightsRequest(NamedTuple):
    """A request to a peer for rights of one counter; ``cost`` is that of the decision that has too few.

    ``asked_us`` is the instant by which ``RightsClient`` knows it.
    """

    key: bytes
    limit: StrictLimit
    ask: Ask
    cost: int
    asked_us: int


class RightsTransport(Protocol):
    """The way to another region's agents."""

    async def ask(self, to_region: str, url: str, asks: Asks) -> Gifts:
        """Send requests. Raises ``UnreachablePeerError``."""
        ...


MAX_HELD = 10_000
"""Counters whose rights an agent remembers for its metrics."""
HELD_US = 60_000_000
"""Rights seen longer ago are left out of the metrics."""


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
        """By reason: steps that the epoch marker refused, and implausible gifts."""
        self._held: dict[bytes, tuple[str, int, int]] = {}

    def note_held(self, key: bytes, limit: str, units: int, now_us: int) -> None:
        """Note the units of rights (buckets: of capacity) that a counter of this limit has."""
        if key not in self._held and len(self._held) >= MAX_HELD:
            self._held.clear()
        self._held[key] = (limit, units, now_us)

    def held(self, now_us: int) -> Counter[str]:
        """Units by limit, of counters for which rights were asked in the last minute, here or by a peer."""
        total: Counter[str] = Counter()
        for limit, units, seen_us in self._held.values():
            if seen_us > now_us - HELD_US:
                total[limit] += units
        return total


def is_plausible(request: RightsRequest, gifts: Gifts, gift: Gift) -> bool:
    """Whether a peer can have had the units that are new in a gift. Totals may be larger, as rights go to and fro."""
    ask, rule = request.ask, request.limit.rule
    known = Total(ask.units, ask.quanta) if gifts.incarnation == ask.to_incarnation else NOTHING
    units, quanta = gift.units - known.units, gift.quanta - known.quanta
    is_new = units <= most_units(rule) and 0 <= quanta <= max(0, units) * quanta_in_unit(rule)
    # A gift with fewer units than known is a late answer: the store takes nothing of it.
    return is_sayable(gift) and gift.id == ask.id and (is_new or units <= 0)
