"""The descriptors of one request, decided together: if one denies, none is consumed.

One descriptor is one check, and one call of the store. Of several, each is peeked at first; they are taken only when
all would pass. Somebody else may take the last unit between the two: then the request is denied although some of its
descriptors were taken, so too little is admitted, never too much.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from data_plane.config.limit_set import LimitSet
from data_plane.decide.check_resolution import UnknownNameError
from data_plane.decide.decider import Decider
from data_plane.decide.pending_check import CHECK_SLOTS, PendingCheck, Refusal, Verdict
from data_plane.http.caller import Headers
from data_plane.store.packing import FIGURES, encode_check
from data_plane.store.subjects import InvalidAddressError
from tidegate.contract.decision import CheckRequest

Problem = UnknownNameError | InvalidAddressError


class Result(NamedTuple):
    """A descriptor's result: a verdict, a refusal, or the error of a value in it."""

    answer: Verdict | Refusal | Problem
    now_us: int

    @property
    def allowed(self) -> bool:
        """Whether the descriptor may pass."""
        return isinstance(self.answer, Verdict) and self.answer.allowed


class _DescriptorCheck(PendingCheck):
    """The check of one of several descriptors, in one of two turns."""

    __slots__ = (*CHECK_SLOTS, "index", "need", "together")

    index: int
    together: "Together"
    need: "_Need | None"

    @property
    def request_id(self) -> str:
        """The id of the whole request, in its answer and in the log."""
        return self.together.request_id

    @property
    def headers(self) -> Headers:
        """The headers of the request."""
        return self.together.headers

    def done(self, figures: Sequence[int], at: int, now_us: int, *, degraded: bool = False) -> None:
        """The store has decided. A denial of a common need keeps the figures of the first turn for other limits."""
        own = figures[at : at + self.limit_set.size]
        if self.need is None:
            self.together.figures[self.index] = own
        elif self.need.limit_set is self.limit_set:  # else a revision has come meanwhile
            own = self.need.without_others(own)
        self.decider.answered(self, own, 0, now_us, degraded=degraded)

    def decided(self, result: Verdict | Refusal, now_us: int) -> None:
        """The result of this turn."""
        together = self.together
        del self.together  # breaks a reference cycle
        together.place(self.index, Result(result, now_us))


class _Need(NamedTuple):
    """What all descriptors together need of limits that have less, all in the limit set of one descriptor."""

    limit_set: LimitSet
    cost: int
    """The cost of the descriptor that takes ``units``, rounded up."""
    units: int
    """What the descriptors need together."""
    places: Sequence[int]
    """Where the limits that have less stand in the limit set."""
    peeked: Sequence[int]
    """The figures of the whole limit set, of the first turn."""

    def without_others(self, figures: Sequence[int]) -> Sequence[int]:
        """The figures of a denial; those of other limits are of the first turn, as nobody needs so much of them."""
        if all(figures[FIGURES * place + 2] >= 0 for place in self.places):
            return figures
        shown = list(self.peeked)
        for place in self.places:
            shown[FIGURES * place : FIGURES * (place + 1)] = figures[FIGURES * place : FIGURES * (place + 1)]
        return shown


class Together:
    """Several descriptors of one request. ``done`` is called once, with their results in order.

    Those that were not reached for are as they were peeked at.
    """

    def __init__(
        self,
        decider: Decider,
        requests: Sequence[CheckRequest],
        request_id: str,
        headers: Headers,
        done: Callable[[list[Result]], None],
    ) -> None:
        self.request_id = request_id
        self.headers = headers
        self.figures: dict[int, Sequence[int]] = {}
        """The figures of each descriptor's limits, of the first turn."""
        self._decider = decider
        self._requests = requests
        self._done = done
        self._results: dict[int, Result] = {}
        self._missing = 0
        self._then: Callable[[], None] = self._take

    def decide(self) -> None:
        """Peek at all descriptors, then take all or none."""
        self._ask(dict.fromkeys(range(len(self._requests)), 0), {}, self._take)

    def place(self, index: int, result: Result) -> None:
        """Note a descriptor's result; the last one ends the turn."""
        self._results[index] = result
        self._missing -= 1
        if not self._missing:
            self._then()

    def _take(self) -> None:
        """All were peeked at. First ask for those that would be denied, as that takes nothing and tells their wait."""
        requests = self._requests
        needed = _needed(self._results, requests)
        needs = {
            index: need
            for index, request in enumerate(requests)
            if (need := _need(self._results[index], request, needed, self.figures.get(index, ()))) is not None
        }
        unlikely = {
            index: needs[index].cost if index in needs else request.cost
            for index, request in enumerate(requests)
            if index in needs or not self._results[index].allowed
        }
        others = {index: request.cost for index, request in enumerate(requests) if index not in unlikely}
        if not unlikely:
            self._ask(others, {}, self._end)
            return

        def go_on() -> None:
            if others and all(self._results[index].allowed for index in unlikely):
                self._ask(others, {}, self._end)
            else:
                self._end()

        self._ask(unlikely, needs, go_on)

    def _end(self) -> None:
        self._done([self._results[index] for index in range(len(self._requests))])

    def _ask(self, costs: Mapping[int, int], needs: Mapping[int, _Need], then: Callable[[], None]) -> None:
        """Check these descriptors at these costs, or for these needs; call ``then`` once all are answered."""
        self._missing = len(costs)
        self._then = then
        decider = self._decider
        ready: list[PendingCheck] = []
        wrong: list[tuple[int, Result]] = []
        for index, cost in costs.items():
            check = _DescriptorCheck()
            check.index, check.together, check.decider = index, self, decider
            check.need = need = needs.get(index)
            check.request = msgspec.structs.replace(self._requests[index], cost=cost)
            check.asked_us = decider.now_us()
            try:
                if decider.make_ready(check):
                    if need is not None and check.limit_set.gate_pass is None:
                        check.cost, check.packed = need.units, encode_check(need.units, check.params)
                    ready.append(check)
            except (UnknownNameError, InvalidAddressError) as error:
                wrong.append((index, Result(error, check.asked_us)))
        if ready:
            decider.submit_all(ready)
        for index, result in wrong:
            self.place(index, result)


def _needed(peeked: Mapping[int, Result], requests: Sequence[CheckRequest]) -> Counter[bytes]:
    """What all descriptors together would take, by counter, as they may share limits."""
    needed: Counter[bytes] = Counter()
    for index, request in enumerate(requests):
        answer = peeked[index].answer
        if isinstance(answer, Verdict):
            check = answer.check
            needed.update(dict.fromkeys(check.keys, request.cost * check.limit_set.unit_cost))
    return needed


def _need(peeked: Result, request: CheckRequest, needed: Counter[bytes], figures: Sequence[int]) -> _Need | None:
    """The limits of a descriptor that would pass alone, but have less than all descriptors together need."""
    answer = peeked.answer
    if not isinstance(answer, Verdict) or not answer.allowed or not request.cost * answer.check.limit_set.unit_cost:
        return None
    check = answer.check
    short = {
        place: needed[key]
        for place, (key, limit, outcome) in enumerate(
            zip(check.keys, check.limit_set.limits, answer.outcomes, strict=True)
        )
        if needed[key] > outcome.remaining
        and not limit.rule.shadow
        and not (answer.degraded and limit.rule.on_store_failure == "open")
    }
    if not short:
        return None
    units = max(short.values())
    cost = -(-units // check.limit_set.unit_cost)
    return _Need(check.limit_set, cost, units, [place for place, need in short.items() if need == units], figures)
