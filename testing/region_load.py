"""Load on every node of every region, what its callers saw, and the bounds that follow from it (docs/regions.md)."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import httpx

from testing.regions import Regions

LOOK_EVERY_S = 0.1


class Seen(NamedTuple):
    """One answer. Times are epoch seconds; ``ends_at`` is when its window ends, or a bit later."""

    region: str
    key: str
    asked_at: float
    answered_at: float
    allowed: bool
    degraded: bool
    ends_at: float


class Load:
    """``rates[region]`` are the questions a second at *each* node there; every question is for all ``keys``.

    ``async with load:`` asks until the block ends. What was asked before stays in ``seen``: a load may begin again.
    """

    def __init__(self, regions: Regions, keys: Sequence[str], rates: Mapping[str, float]) -> None:
        self.seen: list[Seen] = []
        self.unanswered: list[tuple[str, float]] = []
        """Region, and when: it may have been counted."""
        self.sigma_s = 0.0
        """The greatest age of information that a node told while it did not take the peer for silent."""
        self._regions = regions
        self._keys = keys
        self._rates = rates
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        """Begin."""
        self._stopping.clear()
        places = [(name, node) for name in self._regions.names for node in range(len(self._regions.clients[name]))]
        self._tasks = [asyncio.create_task(self._ask(name, node)) for name, node in places]
        self._tasks.append(asyncio.create_task(self._look(places)))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End, once all is answered."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    def answers(self, key: str) -> list[Seen]:
        """Those for one key."""
        return [one for one in self.seen if one.key == key]

    def admitted(self, key: str, region: str | None = None) -> int:
        """How many passed, in all or in one region."""
        return sum(one.allowed for one in self.answers(key) if region in {None, one.region})

    def windows(self, key: str, window_s: float) -> Counter[int]:
        """What was admitted under each window, by the answers' own word of when it ends."""
        return Counter(round(one.ends_at / window_s) for one in self.answers(key) if one.allowed)

    def slowest_s(self) -> float:
        """The longest that an answer took."""
        return max((one.answered_at - one.asked_at for one in self.seen), default=0.0)

    def bound(self, key: str, limit: int, sigma_s: float) -> int:
        """``min((R - 1) L, max over i of the sum over j of A_j(sigma))`` of docs/regions.md, A_j being measured.

        What arrived is counted somewhere between when it was asked and when it was answered, so that an interval is
        longer by the slowest answer.
        """
        most = {name: self.most_arrived(name, key, sigma_s) for name in self._regions.names}
        return min((len(most) - 1) * limit, max(sum(most.values()) - own for own in most.values()))

    def most_arrived(self, region: str, key: str, seconds: float) -> int:
        """The most that may have been counted in a region in any interval of ``seconds``."""
        arrived = [one.asked_at for one in self.answers(key) if one.region == region]
        arrived += [at for name, at in self.unanswered if name == region]
        return most_within(arrived, seconds + self.slowest_s())

    async def _ask(self, region: str, node: int) -> None:
        every_s, client = 1 / self._rates[region], self._regions.clients[region][node]
        body = {"checks": [{"api_key": key} for key in self._keys]}
        begun, number = time.monotonic(), 0
        while not self._stopping.is_set():
            number += 1
            await asyncio.sleep(max(0.0, begun + number * every_s - time.monotonic()))
            asked_at = time.time()
            try:
                answer = await client.post("/v1/check/batch", json=body)
            except httpx.ConnectError:
                continue  # it was never asked
            except httpx.HTTPError:
                self.unanswered.append((region, asked_at))
                continue
            answered_at = time.time()
            for key, item in zip(self._keys, answer.raise_for_status().json()["decisions"], strict=True):
                ends_at = answered_at + (item["reset_after_s"] or 0.0)
                self.seen.append(Seen(region, key, asked_at, answered_at, item["allowed"], item["degraded"], ends_at))

    async def _look(self, places: Iterable[tuple[str, int]]) -> None:
        """Between two looks an age may have grown for as long: a busy machine looks seldom."""
        last: dict[tuple[str, int, str], tuple[float, float]] = {}
        while not self._stopping.is_set():
            for region, node in places:
                begun = time.monotonic()
                try:
                    peers = (await self._regions.status(region, node=node))["peers"]
                except httpx.HTTPError:
                    continue
                now = time.monotonic()
                for peer, told in peers.items():
                    age_s, at = last.pop((region, node, peer), (0.0, now))
                    self.sigma_s = max(self.sigma_s, age_s + now - at)
                    if not told["silent"]:
                        last[(region, node, peer)] = (told["staleness_s"] or 0.0, begun)
            await asyncio.sleep(LOOK_EVERY_S)


def most_within(times: Iterable[float], seconds: float) -> int:
    """The most of ``times`` that lie in any interval of ``seconds``."""
    ordered = sorted(times)
    most, first = 0, 0
    for last, at in enumerate(ordered):
        while at - ordered[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
