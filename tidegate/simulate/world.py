"""A whole world in virtual time: regions, links, a control plane, people who ask, and what goes wrong."""

import random
from collections.abc import Mapping
from dataclasses import replace

from contract.limits import BUCKET_ALGORITHMS
from data_plane.domain.regions.book import Cell, Life
from data_plane.domain.regions.rules import ALL_RULES, DEFAULT_TIMING, Rules
from tidegate.simulate.control import ControlPlane, first_config
from tidegate.simulate.network import Links, Timeline
from tidegate.simulate.record import Record
from tidegate.simulate.region import KEY, SimulatedRegion
from tidegate.simulate.scenario import Demand, Fault, Scenario
from tidegate.simulate.store import SimulatedStore
from tidegate.simulate.tellers import Telling

EPOCH_US = 1_700_000_000_000_000
_SAMPLE_US = 250_000


class World:
    """One run of a scenario; the same seed gives the same run."""

    def __init__(self, scenario: Scenario, seed: int, rules: Rules = ALL_RULES) -> None:
        self.scenario = scenario
        self.rules = rules
        self.timing = replace(
            DEFAULT_TIMING, epoch_floor_us=round(scenario.epoch_s * 1e6), sweep_us=round(scenario.sweep_s * 1e6)
        )
        self.chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self.record = Record()
        self.tells = scenario.mode == "shared"
        self._lives: dict[tuple[str, str], int] = {}
        self.timeline = Timeline(EPOCH_US)
        self.links = Links(scenario.network, self.timeline, self.chance, self.record)
        self.regions = {name: SimulatedRegion(self, name, first_config(scenario, name)) for name in scenario.regions}
        frame = next(iter(self.regions.values())).frame
        self.start_us = EPOCH_US - EPOCH_US % frame.length_us
        self.timeline.now_us = self.start_us
        for region in self.regions.values():
            region.store.heard = dict.fromkeys(region.peers, region.clock_us())
        self.control = ControlPlane(self)
        self.teller = Telling(self)
        self._samples = scenario.mode == "shared" and scenario.algorithm not in BUCKET_ALGORITHMS

    def run(self) -> Record:
        """Let the scenario's time pass."""
        for demand in self.scenario.demand:
            self._begin(demand)
        for fault in self.scenario.faults:
            self.timeline.at(self.when_us(fault.at_s), self._strike, fault)
        for change in self.scenario.changes:
            self.timeline.at(self.when_us(change.at_s), self.control.change, change)
        self.timeline.at(self.when_us(self.scenario.network.calm_from_s), self.links.calm)
        if self.tells:
            self.teller.begin()
        if self._samples:
            self.timeline.at(self.start_us + _SAMPLE_US, self._sample)
        if any(fault.kind == "restore_store" for fault in self.scenario.faults):
            self.timeline.at(self.start_us, self._remember)
        self.timeline.run(self.when_us(self.scenario.duration_s))
        return self.record

    def last_known_life(self, region: str, peer: str) -> int:
        """The peer's incarnation as this region last heard; 0 when it never did."""
        return self._lives.get((region, peer), 0)

    def learn_life(self, region: str, peer: str, incarnation: int) -> None:
        """A message named the peer's incarnation."""
        self._lives[(region, peer)] = max(incarnation, self._lives.get((region, peer), 0))

    def when_us(self, at_s: float) -> int:
        """An instant of the scenario, in true time."""
        return self.start_us + round(at_s * 1e6)

    def _begin(self, demand: Demand) -> None:
        region = self.regions[demand.region]
        for _ in range(demand.burst):
            self.timeline.at(self.when_us(demand.from_s), self._arrive, region, demand.cost)
        if demand.per_second > 0:
            self._next(demand, self.when_us(demand.from_s))

    def _next(self, demand: Demand, after_us: int) -> None:
        at_us = after_us + round(self.chance.expovariate(demand.per_second) * 1e6)
        if at_us < self.when_us(min(demand.until_s, self.scenario.duration_s)):
            self.timeline.at(at_us, self._stream, demand)

    def _stream(self, demand: Demand) -> None:
        self._arrive(self.regions[demand.region], demand.cost)
        self._next(demand, self.timeline.now_us)

    def _arrive(self, region: SimulatedRegion, cost: int) -> None:
        region.arrive(cost)

    def _strike(self, fault: Fault) -> None:
        end_us = self.when_us(fault.until_s)
        match fault.kind:
            case "cut" | "delay":
                self.links.begin(fault)
                self.timeline.at(end_us, self.links.end, fault)
            case "kill_node":
                self.regions[fault.region].nodes[fault.node].is_alive = False
                self.timeline.at(end_us, self._start_node, fault)
            case "lose_store":
                region = self.regions[fault.region]
                region.lose(SimulatedStore("", region.store.policy))
            case "restore_store":
                region = self.regions[fault.region]
                region.lose(region.store.copy_of(self.timeline.now_us - round(fault.by_s * 1e6)))
            case "evict":
                store = self.regions[fault.region].store
                if store.policy != "noeviction":
                    store.hot.clear()
                    store.books.clear()
            case "step_clock":
                self.regions[fault.region].step_clock(round(fault.by_s * 1e6))
            case "reset":
                for node in self.regions[fault.region].nodes:
                    node.config = node.config._replace(generation=node.config.generation + 1)
            case "unreachable_config":
                self.control.unreachable.add(fault.region)
                self.timeline.at(end_us, self.control.unreachable.discard, fault.region)

    def _start_node(self, fault: Fault) -> None:
        region = self.regions[fault.region]
        node = region.nodes[fault.node]
        newest = max((one.config for one in region.nodes), key=lambda config: config.revision)
        region.restart(node, region.first_config if fault.from_snapshot else newest)
        self.control.refresh(fault.region, fault.node)

    def _remember(self) -> None:
        for region in self.regions.values():
            region.store.remember(self.timeline.now_us)
        self.timeline.at(self.timeline.now_us + _SAMPLE_US, self._remember)

    def _sample(self) -> None:
        """Note how old the oldest count is that some region does not know of another."""
        now_us = self.timeline.now_us
        for region in self.regions.values():
            _, book = region.store.load((KEY, region.nodes[0].config.generation), region.clock_us())
            for peer in region.peers:
                self._note_age(region, self.regions[peer], book.cells, now_us)
        self.timeline.at(now_us + _SAMPLE_US, self._sample)

    def _note_age(
        self, region: SimulatedRegion, peer: SimulatedRegion, cells: Mapping[Life, Cell], now_us: int
    ) -> None:
        marker = peer.store.marker
        if marker is None or self.links.is_cut(peer.name, region.name):
            return
        current = region.clock_us() // region.frame.length_us
        for id in (current - 1, current):
            known = cells.get((peer.name, marker.incarnation, id), Cell(0)).taken
            behind = self.record.first_beyond(peer.name, peer.nodes[0].config.generation, id, known)
            if behind is not None:
                self.record.most_stale_us = max(self.record.most_stale_us, now_us - behind)
