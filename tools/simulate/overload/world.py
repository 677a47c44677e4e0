"""One run: clients ask, a limiter decides, a backend works; every second is recorded."""

import math
import random
from dataclasses import dataclass, field

from tools.simulate.overload.adaptive import Adaptive
from tools.simulate.overload.backend import Backend, Request
from tools.simulate.overload.limiters import Limiter
from tools.simulate.overload.scenario import Scenario

STEP_S = 0.01


@dataclass
class Second:
    """What happened in a second; by class in the order of the scenario's groups."""

    at_s: float
    capacity: float
    offered: list[int]
    admitted: list[int]
    served: list[int]
    wasted: int = 0
    queue_delay_s: float = 0.0
    cpu: float = 0.0
    factor: float | None = None
    delays_s: list[float] = field(default_factory=list)
    """What those answered in this second waited."""


def run(scenario: Scenario, limiter: Limiter, seed: int) -> list[Second]:
    """The whole scenario under one limiter; the same seed offers the same requests to each."""
    chance = random.Random(seed)  # noqa: S311  a simulation
    service_s = scenario.service_ms / 1_000
    backend = Backend(service_s, scenario.patience_s, scenario.queue_s)
    clients = [_Clients(group.name, group.clients) for group in scenario.groups]
    steps_a_second = round(1 / STEP_S)
    seconds = []
    for number in range(round(scenario.duration_s)):
        groups = len(scenario.groups)
        second = Second(float(number), scenario.capacity_at(number), [0] * groups, [0] * groups, [0] * groups)
        rates = [
            scenario.per_second * group.share * scenario.phase_at(number, group.name).demand
            for group in scenario.groups
        ]
        for step in range(steps_a_second):
            now_s = number + step * STEP_S
            if isinstance(limiter, Adaptive):
                limiter.apply(now_s)
            for place, rate in enumerate(rates):
                for _ in range(_poisson(chance, rate * STEP_S)):
                    request = Request(place, clients[place].one(chance), now_s)
                    second.offered[place] += 1
                    if limiter.admits(request):
                        second.admitted[place] += 1
                        if not backend.offer(request, second.capacity):
                            limiter.dropped(request)
            for done in backend.work(now_s, STEP_S, second.capacity):
                limiter.done(done)
                second.delays_s.append(done.rtt_s - service_s)
                if done.in_time:
                    second.served[done.request.group] += 1
                else:
                    second.wasted += 1
        second.cpu, backend.busy_s = min(1.0, backend.busy_s), 0.0
        second.queue_delay_s = backend.queue_delay_s(second.capacity)
        if isinstance(limiter, Adaptive):
            limiter.second(number + 1.0, second.cpu, second.queue_delay_s * 1_000)
        second.factor = limiter.factor()
        seconds.append(second)
    return seconds


class _Clients:
    """A class's clients: a few ask for much, most for little (weights 1/sqrt(rank))."""

    def __init__(self, name: str, count: int) -> None:
        self._names = [f"{name}-{number}".encode() for number in range(count)]
        total = 0.0
        self._up_to = []
        for rank in range(1, count + 1):
            total += 1 / math.sqrt(rank)
            self._up_to.append(total)

    def one(self, chance: random.Random) -> bytes:
        """Who asks now."""
        (name,) = chance.choices(self._names, cum_weights=self._up_to)
        return name


def _poisson(chance: random.Random, mean: float) -> int:
    """Arrivals of a step (Knuth's product of uniforms: means are small)."""
    bound, product, count = math.exp(-mean), chance.random(), 0
    while product > bound:
        product *= chance.random()
        count += 1
    return count
