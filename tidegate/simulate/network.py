"""Links between regions: what is sent may be late, lost, doubled, overtaken, or cut off."""

import heapq
import random
from collections.abc import Callable
from typing import Any

import msgspec

from tidegate.simulate.record import Record
from tidegate.simulate.scenario import Fault, Network


class RunawayError(Exception):
    """Events breed events: a world that would never end."""


class Timeline:
    """Events in order of true time; equal times keep the order in which they were set."""

    def __init__(self, start_us: int, most_events: int = 1_000_000) -> None:
        self._most_events = most_events
        self.now_us = start_us
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def at(self, when_us: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call at ``when_us``, or now if that is past."""
        self._number += 1
        if self._number > self._most_events:
            raise RunawayError(f"more than {self._most_events} events")
        heapq.heappush(self._events, (max(when_us, self.now_us), self._number, call, arguments))

    def run(self, until_us: int) -> None:
        """Let everything happen up to ``until_us``. Raises ``RunawayError``."""
        while self._events and self._events[0][0] <= until_us:
            self.now_us, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
        self.now_us = until_us


class Links:
    """The network as it is now."""

    def __init__(self, network: Network, timeline: Timeline, chance: random.Random, record: Record) -> None:
        self._network = network
        self._timeline = timeline
        self._chance = chance
        self._record = record
        self._cuts: list[Fault] = []
        self._delays: list[Fault] = []

    def begin(self, fault: Fault) -> None:
        """A cut or a delay begins."""
        (self._cuts if fault.kind == "cut" else self._delays).append(fault)

    def end(self, fault: Fault) -> None:
        """It is over."""
        (self._cuts if fault.kind == "cut" else self._delays).remove(fault)

    def calm(self) -> None:
        """From now on the network does no worse than to be slow."""
        self._network = msgspec.structs.replace(self._network, spikes=0.0, loss=0.0, duplicates=0.0)

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Whether nothing gets through."""
        return any(_cuts(fault, sender, receiver) for fault in self._cuts)

    def any_cut(self) -> bool:
        """Whether any link is cut."""
        return bool(self._cuts)

    def send(self, sender: str, receiver: str, deliver: Callable[..., None], *message: Any) -> None:
        """Deliver a message, or not, or twice."""
        self._record.messages[type(message[-1]).__name__] += 1
        if self.is_cut(sender, receiver):
            return
        chance = self._chance
        network = self._network
        copies = 2 if network.duplicates and chance.random() < network.duplicates else 1
        for _ in range(copies):
            if network.loss and chance.random() < network.loss:
                continue
            delay_ms = network.delay_ms + network.jitter_ms * (2 * chance.random() - 1)
            if network.spikes and chance.random() < network.spikes:
                delay_ms *= 10
            delay_us = max(100, round(delay_ms * 1000))
            for fault in self._delays:
                if fault.region == sender and fault.peer in ("", receiver):
                    delay_us += round(fault.by_s * 1e6)
            self._record.most_delay_us = max(self._record.most_delay_us, delay_us)
            self._timeline.at(self._timeline.now_us + delay_us, deliver, *message)


def _cuts(fault: Fault, sender: str, receiver: str) -> bool:
    if fault.one_way:
        return sender in fault.groups[1] and receiver in fault.groups[0]
    inside = [group for group in fault.groups if sender in group]
    return bool(inside) and receiver not in inside[0] and any(receiver in group for group in fault.groups)
