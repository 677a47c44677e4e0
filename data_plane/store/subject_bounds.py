"""What keeps an attacker from making subjects without end: values rotate, the store must not fill."""

from collections.abc import Iterable, Mapping

OVERFLOW = "_overflow"
MAX_ATTRIBUTE_VALUES = 10_000
PERIOD_S = 3_600
COARSE_ABOVE = 0.85


class SubjectBounds:
    """A budget of values for each attribute that is counted, an hour each, and the store's word on its memory.

    ``coarse`` is set while the store is nearly full: anonymous addresses then count by network (/24, /48).
    """

    def __init__(self, max_values: int = MAX_ATTRIBUTE_VALUES) -> None:
        self._max_values = max_values
        self._period = 0
        self._seen: dict[str, set[str]] = {}
        self.coarse = False

    def within_budget(self, names: Iterable[str], attributes: Mapping[str, str], now_s: float) -> Mapping[str, str]:
        """The attributes, with values beyond the budget of their name replaced by the one overflow subject."""
        period = int(now_s // PERIOD_S)
        if period != self._period:
            self._period, self._seen = period, {}
        counted = dict(attributes)
        for name in names:
            value = counted.get(name, "")
            seen = self._seen.setdefault(name, set())
            if value not in seen:
                if len(seen) >= self._max_values:
                    counted[name] = OVERFLOW
                else:
                    seen.add(value)
        return counted

    def store_memory(self, used_bytes: int, max_bytes: int) -> None:
        """What the store last said; ``max_bytes`` 0 means unbounded."""
        self.coarse = max_bytes > 0 and used_bytes > COARSE_ABOVE * max_bytes
