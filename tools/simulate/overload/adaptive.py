"""Tidegate's own adaptive limit in the simulation: the same pure code that nodes run, with reporters and delays."""

import random
from collections import deque

from data_plane.config.load_gate import FULL, ClassGate, hour_seed
from data_plane.config.load_guard import capacity_rules, pricing_factor
from data_plane.load.controller import MILLI, BackendFactors, ControlState, Report, decide
from data_plane.store.local_counters import LocalCounters
from data_plane.store.packing import encode_rule
from data_plane.store.script_host import ScriptHost
from tidegate.contract.load import Backend, Capacity
from tools.simulate.overload.backend import Request
from tools.simulate.overload.limiters import Unprotected
from tools.simulate.overload.scenario import Scenario

APPLIED_AFTER_S = 0.25
"""Nodes ask four times a second for the factor."""
START_US = 1_900_000_800 * 1_000_000


class Adaptive(Unprotected):
    """Gates by class, a capacity limit where one is told, and the deciding node's tick once a second."""

    def __init__(self, scenario: Scenario, seed: int, *, with_capacity: bool) -> None:
        self.name = "adaptive, with capacity" if with_capacity else "adaptive"
        self._scenario = scenario
        self._policy = scenario.adaptive_policy()
        self._random = random.Random(seed)  # noqa: S311  a simulation
        told = scenario.capacity if with_capacity else None
        limit = None if told is None else round(told * scenario.per_second)
        capacity = None if limit is None else Capacity(id=1, open_id=2, limit=limit, window_us=1_000_000)
        self._backend = Backend(backend="simulated", capacity=capacity, adaptive=scenario.name)
        self._counters = LocalCounters(ScriptHost(), 2)
        self._gates = [ClassGate() for _ in scenario.groups]
        self._offered_before = [0] * len(self._gates)
        self._state = ControlState()
        self._demand: dict[int, int] = {}
        self._said: dict[str, Report] = {}
        self._on_their_way: deque[tuple[float, Report]] = deque()
        self._decided: deque[tuple[float, BackendFactors]] = deque()
        self._factor = 1.0

    def admits(self, request: Request) -> bool:
        """By class and cohort, then by what is left of the capacity at its present price."""
        gate = self._gates[request.group]
        if not gate.admits(request.client, 1):
            return False
        capacity = self._backend.capacity
        if capacity is None:
            return True
        rules = capacity_rules(self._backend, self._policy, self._scenario.groups[request.group].priority, "here")
        factors = [pricing_factor(rule, self._policy) for rule in rules]
        prices = [1 if factor is None else gate.price(factor, 1) for factor in factors]
        now_us = START_US + round(request.at_s * 1e6)
        # one after the other, what nodes do at once: first a look at each, then the charge
        for look in (True, False):
            for rule, price in zip(rules, prices, strict=True):
                (outcome,) = self._counters.check(
                    [str(rule.id).encode()], [encode_rule(rule)], 0 if look else price, now_us
                )
                if look and outcome.remaining < price:
                    return False
        return True

    def take(self, units: float) -> None:
        """Units that come without single requests, spread over the classes by their shares."""
        whole = sum(group.share for group in self._scenario.groups)
        for group, gate in zip(self._scenario.groups, self._gates, strict=True):
            gate.offered += round(units * group.share / whole)

    def factor(self) -> float | None:
        """The factor that nodes apply now."""
        return self._factor

    def class_factors(self) -> dict[str, float]:
        """The share of each class that nodes admit now, by the names of the scenario's groups."""
        gates = zip(self._scenario.groups, self._gates, strict=True)
        return {group.name: gate.factor / FULL for group, gate in gates}

    def second(self, now_s: float, cpu: float, queue_delay_ms: float) -> None:
        """A second has passed: reporters speak, the deciding node decides; nodes hear of it a little later."""
        reporters = self._scenario.reporters
        for number in range(reporters.count):
            last = number == reporters.count - 1
            if last and reporters.dies_at_s is not None and now_s >= reporters.dies_at_s:
                continue
            said = self._report(number, now_s, cpu, queue_delay_ms)
            self._on_their_way.append((now_s + reporters.delay_s, said))
        while self._on_their_way and self._on_their_way[0][0] <= now_s:
            _, said = self._on_their_way.popleft()
            self._said[said.reporter] = said
        demand = {}
        for place, (group, gate) in enumerate(zip(self._scenario.groups, self._gates, strict=True)):
            demand[group.priority] = (gate.offered - self._offered_before[place]) * MILLI
            self._offered_before[place] = gate.offered
        now_us = START_US + round(now_s * 1e6)
        decided = decide(self._backend, self._policy, self._state, self._said.values(), self._demand, demand, now_us)
        self._state, self._demand = decided.state, decided.demand
        self._decided.append((now_s + APPLIED_AFTER_S, decided))

    def apply(self, now_s: float) -> None:
        """Take what was decided and has arrived."""
        while self._decided and self._decided[0][0] <= now_s:
            _, decided = self._decided.popleft()
            self._factor = decided.whole / FULL
            seed = hour_seed(START_US + round(now_s * 1e6))
            floor, reserve = round(self._policy.floor * FULL), round(self._policy.reserve * FULL)
            for group, gate in zip(self._scenario.groups, self._gates, strict=True):
                gate.set(decided.classes[group.priority], decided.whole, floor=floor, reserve=reserve, seed=seed)

    def _report(self, number: int, now_s: float, cpu: float, queue_delay_ms: float) -> Report:
        reporters = self._scenario.reporters
        if number == 0 and reporters.lies is not None:
            signals = {signal: reporters.lies * full for signal, full in self._policy.signals.items()}
        else:
            off = max(0.0, 1.0 + self._random.gauss(0.0, reporters.noise)) if reporters.noise else 1.0
            signals = {"cpu": cpu * off, "queue_delay_ms": queue_delay_ms * off}
        return Report(f"reporter-{number}", START_US + round(now_s * 1e6), signals)
