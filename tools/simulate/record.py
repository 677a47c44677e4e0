"""The events of a run in order, for the checks and the picture."""

from bisect import bisect_right
from collections import Counter, defaultdict
from typing import NamedTuple


class Admission(NamedTuple):
    """``at_us`` is true time since the epoch, ``stamp_us`` its store's time, ``id`` what it counted under."""

    at_us: int
    region: str
    cost: int
    id: int
    stamp_us: int
    generation: int


class Record:
    """Everything that the checks need; times in microseconds of true time."""

    def __init__(self) -> None:
        self.admitted: list[Admission] = []
        self.denied: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.arrivals: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.messages: Counter[str] = Counter()
        self.transfers = 0
        """Answers that gave rights."""
        self._by_id: dict[tuple[str, int, int], list[tuple[int, int]]] = defaultdict(list)
        self.most_delay_us = 0
        self.most_stale_us = 0
        """The greatest age of a count that a connected peer did not know (windows only)."""
        self.lost_stores: Counter[str] = Counter()

    def admitted_by_id(self) -> Counter[tuple[int, int]]:
        """Admitted units by generation and id."""
        totals: Counter[tuple[int, int]] = Counter()
        for one in self.admitted:
            totals[(one.generation, one.id)] += one.cost
        return totals

    def admit(self, one: Admission) -> None:
        """Note an admission."""
        self.admitted.append(one)
        sums = self._by_id[(one.region, one.generation, one.id)]
        sums.append((one.at_us, (sums[-1][1] if sums else 0) + one.cost))

    def first_beyond(self, region: str, generation: int, id: int, known: int) -> int | None:
        """When the region admitted the first unit beyond ``known`` under ``id``; ``None`` when it did not."""
        sums = self._by_id.get((region, generation, id), [])
        if not sums or sums[-1][1] <= known:
            return None
        return sums[bisect_right(sums, known, key=lambda one: one[1])][0]
