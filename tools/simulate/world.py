"""A whole world in virtual time: regions, links, a control plane, demand, and faults."""

import asyncio
import random
from collections.abc import Callable

import structlog

from data_plane.replicate.count_epochs import EPOCH, PEER_COUNTS_SUFFIX
from data_plane.store.script_host import ScriptHost
from tidegate.contract.calendar import grid_of, id_at
from tidegate.contract.limits import BUCKET_ALGORITHMS
from tools.simulate.control import ControlPlane
from tools.simulate.loop import VirtualLoop
from tools.simulate.network import Links, SimulatedPeers
from tools.simulate.processes import SimulatedAgent
from tools.simulate.record import Record
from tools.simulate.region import SimulatedRegion, counter_key, known_cells
from tools.simulate.scenario import Demand, Fault, Scenario

EPOCH_US = 1_700_000_000_000_000
WARM_UP_S = 3.0
"""The time before the scenario begins, in which processes start, stores begin epochs, and regions connect."""
_REMEMBER_S = 0.25
_SAMPLE_S = 0.25


class World:
    """One run of a scenario; the same seed gives the same run. ``host`` runs the scripts of every store."""

    def __init__(self, scenario: Scenario, seed: int, host: ScriptHost) -> None:
        self.scenario = scenario
        self.host = host
        self.chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self.record = Record()
        self.loop = VirtualLoop()
        self.links = Links(scenario.network, self.chance, self.record)
        self.start_us = self._start_us()
        self.control = ControlPlane(self)
        self.regions = {name: SimulatedRegion(self, name) for name in scenario.regions}

    def now_us(self) -> int:
        """True time, microseconds since the epoch."""
        return self.start_us + round((self.loop.time() - WARM_UP_S) * 1e6)

    def fresh_number(self) -> int:
        """A name for an epoch of a store."""
        return self.chance.randrange(1, 2**32)

    def token_hex(self, size: int) -> str:
        """Random hex digits of ``size`` bytes, as a name."""
        return self.chance.randbytes(size).hex()

    def peers_of(self, region: str) -> SimulatedPeers:
        """The transport from a region to the others."""
        return SimulatedPeers(region, self.links, self._any_agent)

    def run(self) -> Record:
        """Run the scenario to its end. Raises ``RunawayError``."""
        asyncio.set_event_loop(self.loop)
        try:
            with structlog.testing.capture_logs():
                self.loop.run_until_complete(self._run())
        finally:
            self._end()
            asyncio.set_event_loop(None)
        return self.record

    async def _run(self) -> None:
        scenario = self.scenario
        for region in self.regions.values():
            for name, _ in region.names:
                region.disks[name] = self.control.newest_config
                region.start(name, self.control.newest_config)
        self.control.begin()
        for demand in scenario.demand:
            self._begin(demand)
        for fault in scenario.faults:
            self.at(fault.at_s, self._strike, fault)
        for change in scenario.changes:
            self.at(change.at_s, self.control.change, change)
        self.at(scenario.network.calm_from_s, self.links.calm)
        if any(fault.kind == "restore_store" for fault in scenario.faults):
            self._remember()
        if scenario.mode == "shared" and scenario.algorithm not in BUCKET_ALGORITHMS:
            self.at(_SAMPLE_S, self._sample)
        await asyncio.sleep(WARM_UP_S + scenario.duration_s)

    def _end(self) -> None:
        """Cancel all tasks, and close the loop."""
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        self.loop.close()

    def at(self, at_s: float, call: Callable[..., None], *arguments: object) -> None:
        """Call at an instant of the scenario."""
        if at_s < 1e6:
            self.loop.call_at(WARM_UP_S + at_s, call, *arguments)

    def _start_us(self) -> int:
        """The beginning of a window; of buckets, so that an epoch of loans ends where the scenario says."""
        grid = grid_of(self.scenario.rule())
        start_us = EPOCH_US - EPOCH_US % grid.length_us
        if self.scenario.algorithm in BUCKET_ALGORITHMS:
            return start_us - round(self.scenario.epoch_s * 1e6)
        return start_us

    def _sample(self) -> None:
        """Note the age of the oldest count that a region does not know of another."""
        key, now_us = counter_key(self.control.generation), self.now_us()
        for region in self.regions.values():
            cells = known_cells(region, key)
            for peer in self.regions.values():
                if peer is not region and not self.links.is_cut(peer.name, region.name):
                    self._note_age(region, peer, cells, now_us)
        self.loop.call_later(_SAMPLE_S, self._sample)

    def _note_age(
        self, region: SimulatedRegion, peer: SimulatedRegion, cells: dict[str, dict[int, tuple[int, int]]], now_us: int
    ) -> None:
        life = (peer.server.keyspace.peek(EPOCH) or b"").decode()
        known = cells.get(f"{peer.name}/{life}", {})
        current = id_at(grid_of(self.scenario.rule()), region.now_us())
        for id in (current - 1, current):
            behind = self.record.first_beyond(peer.name, self.control.generation, id, known.get(id, (0, 0))[0])
            if behind is not None:
                self.record.most_stale_us = max(self.record.most_stale_us, now_us - behind)

    def _any_agent(self, region: str) -> SimulatedAgent | None:
        agents = self.regions[region].agents()
        return self.chance.choice(agents) if agents else None

    def _begin(self, demand: Demand) -> None:
        for _ in range(demand.burst):
            self.at(demand.from_s, self.regions[demand.region].arrive, demand.cost)
        if demand.per_second > 0:
            self._next(demand, demand.from_s)

    def _next(self, demand: Demand, after_s: float) -> None:
        at_s = after_s + self.chance.expovariate(demand.per_second)
        if at_s < min(demand.until_s, self.scenario.duration_s):
            self.at(at_s, self._stream, demand, at_s)

    def _stream(self, demand: Demand, at_s: float) -> None:
        self.regions[demand.region].arrive(demand.cost)
        self._next(demand, at_s)

    def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "cut" | "delay":
                self.links.begin(fault)
                self.at(fault.until_s, self.links.end, fault)
            case "reset":
                self.control.reset()
            case "free_share":
                self.control.free(fault.region)
            case "delete_region":
                self.control.delete_region(fault.region)
            case "add_region":
                self.control.add_region(fault.region)
            case "unreachable_config":
                names = self._names(fault)
                self.control.unreachable.update(names)
                self.at(fault.until_s, self.control.reach_again, names)
            case _:
                self._strike_region(self.regions[fault.region], fault)

    def _strike_region(self, region: SimulatedRegion, fault: Fault) -> None:
        server = region.server
        match fault.kind:
            case "kill_node" | "kill_agent" | "stop_node" | "stop_agent" | "kill_all":
                self._strike_processes(region, fault)
            case "lose_power":
                self._strike_processes(region, fault)
                server.stop()
                self.at(fault.until_s, server.start)
            case "lose_store":
                region.forget_ids()
                self.record.lost_stores[region.name] += 1
                server.start(server.empty())
            case "restore_store":
                region.forget_ids()
                self.record.lost_stores[region.name] += 1
                server.start(server.copy_of(self.now_us() - round(fault.by_s * 1e6)))
            case "flush_store":
                region.forget_ids()
                self.record.lost_stores[region.name] += 1
                server.keyspace.execute("FLUSHALL")
            case "evict":
                if server.policy != "noeviction":
                    key = counter_key(self.control.generation)
                    server.keyspace.execute("DEL", key, key + PEER_COUNTS_SUFFIX)
            case "step_clock":
                region.step_clock(round(fault.by_s * 1e6))

    def _strike_processes(self, region: SimulatedRegion, fault: Fault) -> None:
        for name in self._names(fault):
            process = region.processes[name]
            if fault.kind.startswith("stop"):
                process.stop()
                self.at(fault.until_s, process.go_on)
            else:
                process.kill()
                self.at(fault.until_s, self._restart, region, name, fault.from_snapshot)

    def _names(self, fault: Fault) -> list[str]:
        """The processes that a fault names: one of a kind, all of a kind, or all."""
        region = self.regions[fault.region]
        if fault.kind in {"kill_node", "stop_node"}:
            return [region.named("node", fault.node)]
        if fault.kind in {"kill_agent", "stop_agent"}:
            return [region.named("agent", fault.node)]
        return [name for name, _ in region.names if not fault.only or name == f"{region.name}-{fault.only}"]

    def _restart(self, region: SimulatedRegion, name: str, from_snapshot: bool) -> None:
        region.start(name, self.control.first_config if from_snapshot else region.disks[name])
        self.control.connected(region, name)

    def _remember(self) -> None:
        for region in self.regions.values():
            region.server.remember(self.now_us())
        self.loop.call_later(_REMEMBER_S, self._remember)
