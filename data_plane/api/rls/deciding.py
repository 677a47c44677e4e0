"""The descriptors of one request, decided together: if one denies, none is consumed.

One descriptor is one check, and one call of the store. Of several, each is peeked at first; they are taken only when
all would pass. Somebody else may take the last unit between the two: then the request is denied although some of its
descriptors were taken, so too little is admitted, never too much.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from contract.decision import CheckRequest
from data_plane.domain.check import Refusal, UnknownNameError, Verdict
from data_plane.domain.subjects import InvalidAddressError
from data_plane.services.decide import CHECK_SLOTS, Check, Decider

Problem = UnknownNameError | InvalidAddressError


class Result(NamedTuple):
    """What became of a descriptor: a verdict, a refusal, or what was wrong with a value in it."""

    answer: Verdict | Refusal | Problem
    now_us: int

    @property
    def allowed(self) -> bool:
        """Whether it may pass."""
        return isinstance(self.answer, Verdict) and self.answer.allowed


class DescriptorCheck(Check):
    """A check whose answer is awaited."""

    __slots__ = (*CHECK_SLOTS, "answered", "request_id")

    def __init__(
        self, request: CheckRequest, request_id: str, decider: Decider, answered: "asyncio.Future[Result]"
    ) -> None:
        self.request = request
        self.request_id = request_id
        """What names the request, with all its descriptors, in its answer and in the log."""
        self.decider = decider
        self.asked_us = decider.now_us()
        self.answered = answered

    def decided(self, result: Verdict | Refusal, now_us: int) -> None:
        """Hand the answer over, unless whoever waited has gone."""
        if not self.answered.done():
            self.answered.set_result(Result(result, now_us))


async def decide(decider: Decider, requests: Sequence[CheckRequest], request_id: str) -> list[Result]:
    """Decide a request's descriptors, in their order. Those that were not reached for are as they were peeked at."""
    if len(requests) == 1:
        return [await _ask(decider, requests[0], request_id)]
    results = await _ask_all(decider, [msgspec.structs.replace(request, cost=0) for request in requests], request_id)
    needed = _needed(results, requests)
    refused_at = {at: _refused_at(results[at], request, needed) for at, request in enumerate(requests)}
    unlikely = {at: cost for at, cost in refused_at.items() if cost is not None}
    # Those that would not pass come first: their denials cost nothing, and say how long to wait.
    for turn in (sorted(unlikely), [at for at in range(len(requests)) if at not in unlikely]):
        asked = [msgspec.structs.replace(requests[at], cost=unlikely.get(at, requests[at].cost)) for at in turn]
        taken = await _ask_all(decider, asked, request_id)
        for at, result in zip(turn, taken, strict=True):
            results[at] = result
        if not all(result.allowed for result in taken):
            break
    return results


def _needed(peeked: Sequence[Result], requests: Sequence[CheckRequest]) -> Counter[bytes]:
    """What all descriptors together would take, by counter: they may meet the same limits."""
    needed: Counter[bytes] = Counter()
    for result, request in zip(peeked, requests, strict=True):
        if isinstance(result.answer, Verdict):
            prepared = result.answer.prepared
            needed.update(dict.fromkeys(prepared.keys, request.cost * prepared.bound.unit_cost))
    return needed


def _refused_at(peeked: Result, request: CheckRequest, needed: Counter[bytes]) -> int | None:
    """The cost to ask for to be refused as all together would be; ``None``: it would pass."""
    answer = peeked.answer
    if not isinstance(answer, Verdict) or not answer.allowed:
        return request.cost
    prepared = answer.prepared
    bound = prepared.bound
    if not request.cost * bound.unit_cost:
        return None
    short = [
        needed[key]
        for key, limit, outcome in zip(prepared.keys, bound.limits, answer.outcomes, strict=True)
        if needed[key] > outcome.remaining and not limit.rule.shadow
    ]
    return -(-max(short) // bound.unit_cost) if short else None


async def _ask_all(decider: Decider, requests: Sequence[CheckRequest], request_id: str) -> list[Result]:
    return list(await asyncio.gather(*(_ask(decider, request, request_id) for request in requests)))


def _ask(decider: Decider, request: CheckRequest, request_id: str) -> "asyncio.Future[Result]":
    answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    check = DescriptorCheck(request, request_id, decider, answered)
    try:
        decider.decide(check)
    except (UnknownNameError, InvalidAddressError) as error:
        answered.set_result(Result(error, check.asked_us))
    return answered
