"""A region in virtual time: its store, its nodes and agents, and how requests and messages meet them."""

from collections import Counter
from typing import TYPE_CHECKING

from data_plane.config.index import ConfigSet
from data_plane.replicate.count_epochs import PEER_COUNTS_SUFFIX
from data_plane.store.strict_packing import LOW, REFUSED
from data_plane.store.subjects import generation_end, limit_code
from tidegate.contract.calendar import grid_of, id_at
from tidegate.contract.limits import BUCKET_ALGORITHMS
from tools.simulate.processes import CLIENT, SimulatedAgent, SimulatedCheck, SimulatedNode, SimulatedProcess
from tools.simulate.record import Admission
from tools.simulate.server import SimulatedServer

if TYPE_CHECKING:
    from tools.simulate.world import World

RULE_ID = 1


def counter_key(generation: int) -> bytes:
    """The key of the world's counter, in every region."""
    return f"{{{CLIENT}}}{limit_code(RULE_ID)}{generation_end(generation)}".encode()


def known_cells(region: "SimulatedRegion", key: bytes) -> dict[str, dict[int, tuple[int, int]]]:
    """A region's counts of others (``lua/receive.lua``): by epoch and window, taken and returned."""
    raw = region.server.keyspace.peek(key + PEER_COUNTS_SUFFIX) or b""
    found: dict[str, dict[int, tuple[int, int]]] = {}
    at = 1
    while at < len(raw):
        window, taken, returned = (
            int.from_bytes(raw[at + start : at + end], "little") for start, end in ((1, 8), (8, 14), (14, 20))
        )
        end = at + 20 + raw[at]
        found.setdefault(raw[at + 20 : end].decode(), {})[window] = (taken, returned)
        at = end
    return found


class SimulatedRegion:
    """A region, and the clock of all its processes (the port ``Clock``). Its running nodes get requests in turn."""

    def __init__(self, world: "World", name: str) -> None:
        scenario = world.scenario
        self.world = world
        self.name = name
        self.offset_us = round(scenario.clocks.get(name, 0.0) * 1e6)
        self.most_ahead_us = self.offset_us
        self.stepped_forward_us = 0
        policy = "allkeys-lru" if name in scenario.evicting else "noeviction"
        self.server = SimulatedServer(world.host, self.now_us, name, policy)
        self.names: list[tuple[str, type[SimulatedProcess]]] = [
            (f"{name}-n{number}", SimulatedNode) for number in range(scenario.nodes)
        ]
        self.names += [(f"{name}-a{number}", SimulatedAgent) for number in range(scenario.agents)]
        self.processes: dict[str, SimulatedProcess] = {}
        self.disks: dict[str, tuple[int, ConfigSet]] = {}
        """The newest configuration of each process, which a restart keeps."""
        self._turn = 0
        self._newest_stamp_us: Counter[int] = Counter()
        """By generation: an entry of a log takes the newest one's time where the clock was set back (``log.lua``)."""
        self._newest_id = 0
        self._grid = grid_of(scenario.rule())

    def now_us(self) -> int:
        """The region's time, microseconds since the epoch."""
        return self.world.now_us() + self.offset_us

    def step_clock(self, by_us: int) -> None:
        """Move the region's clock."""
        self.offset_us += by_us
        self.most_ahead_us = max(self.most_ahead_us, self.offset_us)
        self.stepped_forward_us += max(0, by_us)

    def start(self, name: str, config: tuple[int, ConfigSet]) -> None:
        """Start a process with a configuration."""
        process = dict(self.names)[name](self, name)
        self.processes[name] = process
        revision, documents = config
        if revision:
            process.apply(documents, revision)
        process.begin()

    def nodes(self) -> list[SimulatedNode]:
        """The nodes that run."""
        return [one for one in self.processes.values() if isinstance(one, SimulatedNode) and one.is_running]

    def agents(self) -> list[SimulatedAgent]:
        """The agents that are alive; those that are stopped too, as peers cannot tell."""
        return [one for one in self.processes.values() if isinstance(one, SimulatedAgent) and one.is_alive]

    def named(self, kind: str, number: int) -> str:
        """The name of a process, by ``node`` or ``agent`` and its number."""
        return f"{self.name}-{kind[0]}{number}"

    def arrive(self, cost: int) -> None:
        """Give one request to a node."""
        self.world.record.arrivals[self.name].append((self.world.now_us(), cost))
        nodes = self.nodes()
        self._turn += 1
        if nodes:
            nodes[self._turn % len(nodes)].ask(cost)
        else:
            self.world.record.denied[self.name] += cost

    def admitted(self, check: SimulatedCheck) -> None:
        """Record an admitted request."""
        generation = check.generation
        stamp_us = self._newest_stamp_us[generation] = max(check.store_us, self._newest_stamp_us[generation])
        admission = Admission(check.ran_us, self.name, check.cost, self._id_of(check), stamp_us, generation)
        self.world.record.admit(admission)

    def denied(self, check: SimulatedCheck) -> None:
        """Record a denied request."""
        self.world.record.denied[self.name] += check.cost

    def forget_ids(self) -> None:
        """The store was replaced: it may count under ids and times again that the clock was set back to."""
        self._newest_id = 0
        self._newest_stamp_us.clear()

    def _id_of(self, check: SimulatedCheck) -> int:
        """The id that an admission counted under; a store's ids never go back with its clock."""
        scenario = self.world.scenario
        if scenario.algorithm in BUCKET_ALGORITHMS:
            return id_at(self._grid, check.store_us)
        if scenario.algorithm == "fixed_window" or scenario.mode == "strict":
            ends_us = check.store_us + (check.window_us - LOW if check.window_us >= REFUSED else check.window_us)
            return id_at(self._grid, ends_us) - 1
        self._newest_id = max(self._newest_id, id_at(self._grid, check.store_us))
        return self._newest_id
