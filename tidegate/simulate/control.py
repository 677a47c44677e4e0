"""The control plane in virtual time: cuts first, raises when every live node has acknowledged its cut."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from contract.limits import BUCKET_ALGORITHMS
from contract.shares import split
from data_plane.domain.regions.frame import first_free_id, id_at
from data_plane.domain.regions.quotas import Quota, cut, raise_from
from data_plane.domain.regions.terms import NO_ID
from tidegate.simulate.node import Config, SimulatedNode
from tidegate.simulate.scenario import Change, Scenario

if TYPE_CHECKING:
    from tidegate.simulate.region import SimulatedRegion
    from tidegate.simulate.world import World

_RETRY_US = 500_000


def shares_of(scenario: Scenario, limit: int, shares: dict[str, int]) -> dict[str, int]:
    """Whole units of rights, or of capacity for buckets."""
    if scenario.algorithm in BUCKET_ALGORITHMS:
        rule = scenario.rule()
        whole = rule.limit if rule.burst is None else rule.burst
        return split(whole + (1 if scenario.algorithm == "leaky_bucket" else 0), shares)
    return split(limit, shares)


def first_config(scenario: Scenario, region: str) -> Config:
    """What every node starts with."""
    shares = shares_of(scenario, scenario.limit, scenario.regions)
    quota = Quota(NO_ID, shares[region], scenario.limit)
    return Config(1, (quota,), tuple(sorted(shares.items())))


class ControlPlane:
    """One change at a time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._revision = 1
        self.unreachable: set[str] = set()
        self.limit_steps: list[tuple[int, int]] = [(NO_ID, world.scenario.limit)]
        """The limit in force from an id on."""
        self._raised_shares: dict[str, tuple[tuple[str, int], ...]] = {}
        """What regions were raised to: a cut and the raise after it are one revision here."""

    def change(self, change: Change) -> None:
        """Begin a change."""
        world = self._world
        self._revision += 1
        shares = shares_of(world.scenario, change.limit, change.shares)
        # A region without a live node cannot acknowledge, and so holds up every raise.
        waiting = {
            (name, node.number)
            for name, region in world.regions.items()
            for node in region.live_nodes() or region.nodes
        }
        effective: list[int] = []
        for name, number in sorted(waiting):
            self._later(self._cut, name, number, change, shares, self._revision, waiting, effective)
        if not world.rules.raise_after_cuts:
            self._release(change, shares, self._revision, None)

    def refresh(self, region: str, number: int) -> None:
        """A node that started from a snapshot is told what it missed."""
        self._later(self._refreshed, region, number)

    def limit_in_force(self, id: int) -> int:
        """The largest limit that any region may go by under ``id``."""
        found = self.limit_steps[0][1]
        for from_id, limit in self.limit_steps:
            if from_id <= id:
                found = limit
        return found

    def _quota(self, region: str, from_id: int, change: Change, shares: dict[str, int]) -> Quota:
        return Quota(from_id, shares[region], change.limit)

    def _later(self, call: Callable[..., None], region: str, number: int, *arguments: object) -> None:
        delay_us = 20_000 + self._world.chance.randrange(800_000)
        self._world.timeline.at(self._world.timeline.now_us + delay_us, self._deliver, call, region, number, arguments)

    def _deliver(self, call: Callable[..., None], region: str, number: int, arguments: tuple[object, ...]) -> None:
        if region in self.unreachable or not self._world.regions[region].nodes[number].is_alive:
            self._world.timeline.at(
                self._world.timeline.now_us + _RETRY_US, self._deliver, call, region, number, arguments
            )
            return
        call(self._world.regions[region], self._world.regions[region].nodes[number], *arguments)

    def _cut(
        self,
        region: "SimulatedRegion",
        node: SimulatedNode,
        change: Change,
        shares: dict[str, int],
        revision: int,
        waiting: set[tuple[str, int]],
        effective: list[int],
    ) -> None:
        now_us, rules = region.clock_us(), self._world.rules
        current = id_at(region.frame, now_us)
        free = first_free_id(region.frame, now_us, self._world.timing.skew_us)
        target = self._quota(region.name, 0, change, shares)
        schedule, from_id = cut(node.config.schedule, target, current, free, rules)
        self._apply(region, node, node.config._replace(revision=revision, schedule=schedule))
        effective.append(from_id)
        waiting.discard((region.name, node.number))
        if not waiting and rules.raise_after_cuts:
            self._release(change, shares, revision, max(effective))

    def _release(self, change: Change, shares: dict[str, int], revision: int, from_id: int | None) -> None:
        world = self._world
        if from_id is not None:
            self.limit_steps.append((from_id, change.limit))
        for name, region in world.regions.items():
            for node in region.live_nodes():
                self._later(self._raised, name, node.number, change, shares, revision, from_id)

    def _raised(
        self,
        region: "SimulatedRegion",
        node: SimulatedNode,
        change: Change,
        shares: dict[str, int],
        revision: int,
        from_id: int | None,
    ) -> None:
        if from_id is None:
            from_id = first_free_id(region.frame, region.clock_us(), self._world.timing.skew_us)
        schedule = raise_from(node.config.schedule, self._quota(region.name, from_id, change, shares))
        config = node.config._replace(revision=revision, schedule=schedule, shares=tuple(sorted(shares.items())))
        self._raised_shares[region.name] = config.shares
        self._apply(region, node, config)

    def _refreshed(self, region: "SimulatedRegion", node: SimulatedNode) -> None:
        raised = self._raised_shares.get(region.name)
        newest = max(
            (one.config for one in region.nodes), key=lambda config: (config.revision, config.shares == raised)
        )
        self._apply(region, node, newest)

    def _apply(self, region: "SimulatedRegion", node: SimulatedNode, config: Config) -> None:
        node.config = config
        marker = region.store.marker
        if node.is_alive and region.connect(node) and marker is not None and marker.revision < config.revision:
            region.store.marker = marker._replace(revision=config.revision)
