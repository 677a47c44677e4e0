"""The descriptors of one request, decided together: if one denies, none is consumed.

One descriptor is one check, and one call of the store. Of several, each is peeked at first; they are taken only when
all would pass. Somebody else may take the last unit between the two: then the request is denied although some of its
descriptors were taken, so too little is admitted, never too much.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from data_plane.decide.check_resolution import UnknownNameError
from data_plane.decide.decider import Decider
from data_plane.decide.pending_check import CHECK_SLOTS, PendingCheck, Refusal, Verdict
from data_plane.http.caller import Headers
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

    __slots__ = (*CHECK_SLOTS, "index", "together")

    index: int
    together: "Together"

    @property
    def request_id(self) -> str:
        """The id of the whole request, in its answer and in the log."""
        return self.together.request_id

    @property
    def headers(self) -> Headers:
        """The headers of the request."""
        return self.together.headers

    def decided(self, result: Verdict | Refusal, now_us: int) -> None:
        """The result of this turn."""
        together = self.together
        del self.together  # breaks a reference cycle
        together.place(self.index, Result(result, now_us))


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
        self._decider = decider
        self._requests = requests
        self._done = done
        self._results: dict[int, Result] = {}
        self._missing = 0
        self._then: Callable[[], None] = self._take

    def decide(self) -> None:
        """Peek at all descriptors, then take all or none."""
        self._ask(dict.fromkeys(range(len(self._requests)), 0), self._take)

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
        refused_at = {
            index: _refused_at(self._results[index], request, needed) for index, request in enumerate(requests)
        }
        unlikely = {index: cost for index, cost in refused_at.items() if cost is not None}
        others = {index: request.cost for index, request in enumerate(requests) if index not in unlikely}
        if not unlikely:
            self._ask(others, self._end)
            return

        def go_on() -> None:
            if others and all(self._results[index].allowed for index in unlikely):
                self._ask(others, self._end)
            else:
                self._end()

        self._ask(unlikely, go_on)

    def _end(self) -> None:
        self._done([self._results[index] for index in range(len(self._requests))])

    def _ask(self, costs: Mapping[int, int], then: Callable[[], None]) -> None:
        """Check these descriptors at these costs; call ``then`` once all are answered."""
        self._missing = len(costs)
        self._then = then
        decider = self._decider
        ready: list[PendingCheck] = []
        wrong: list[tuple[int, Result]] = []
        for index, cost in costs.items():
            check = _DescriptorCheck()
            check.index, check.together, check.decider = index, self, decider
            check.request = msgspec.structs.replace(self._requests[index], cost=cost)
            check.asked_us = decider.now_us()
            try:
                if decider.make_ready(check):
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


def _refused_at(peeked: Result, request: CheckRequest, needed: Counter[bytes]) -> int | None:
    """A cost at which the descriptor is denied as all together would be; ``None`` if all would pass."""
    answer = peeked.answer
    if not isinstance(answer, Verdict) or not answer.allowed:
        return request.cost
    limit_set = answer.check.limit_set
    if not request.cost * limit_set.unit_cost:
        return None
    short = [
        needed[key]
        for key, limit, outcome in zip(answer.check.keys, limit_set.limits, answer.outcomes, strict=True)
        if needed[key] > outcome.remaining
        and not limit.rule.shadow
        and not (answer.degraded and limit.rule.on_store_failure == "open")
    ]
    return -(-max(short) // limit_set.unit_cost) if short else None
