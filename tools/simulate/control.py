"""The control plane in virtual time: the schedule of shares is its own (``control_plane/quotas/share_schedule.py``)."""

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from control_plane.quotas.share_schedule import (
    acknowledged,
    cut_again,
    one_step,
    parts_of,
    published,
    raise_at_us,
    rescheduled,
    situation,
    target_of,
)
from data_plane.config.index import ConfigSet
from tidegate.contract.calendar import SKEW_US, grid_of, id_at, next_start_us
from tidegate.contract.config import Ack, ApiKey, Change, Client, Plan, Region
from tidegate.contract.credentials import secret_sha256
from tidegate.contract.limits import BUCKET_ALGORITHMS, PARTS, LimitRule, ShareStep, capacity
from tidegate.contract.shares import split
from tidegate.contract.status import Newest
from tools.simulate import scenario as scenarios
from tools.simulate.processes import API_KEY, CLIENT, SimulatedProcess

if TYPE_CHECKING:
    from tools.simulate.region import SimulatedRegion
    from tools.simulate.world import World

_EVERY_S = 1.0
_RETRY_S = 0.5
_FIRST_S, _LAST_S = 0.02, 0.82
"""Bounds of the time that a revision takes to a process, or an ACK to the control plane; seconds."""
_CONNECTED_S = 5.0
"""A process counts as connected for this long after its last message."""
_CUT_AGAIN_S = 20.0


class _Connected(NamedTuple):
    region: str
    node: str
    applied_revision: int


class ControlPlane:
    """The control plane of one limit; it moves shares one change at a time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        scenario = world.scenario
        self._since_us = world.start_us - 250_000
        """When the limit was made: after every store began its epoch, so that none can have forgotten any of it."""
        self._regions = list(scenario.regions)
        self._rule = self._wanted(scenario.rule(), scenario.regions)
        self._rules = [(0, self._rule)]
        self.rules_in_force: list[tuple[int, list[LimitRule]]] = [(0, [self._rule])]
        """The rules that some process may go by from an instant on."""
        self._units = one_step(target_of(self._rule))
        self._parts = one_step(parts_of(self._rule))
        """The share schedule in parts, of clients with overrides, and of limits that change while shares move."""
        self.generation = 0
        self._cut_revision = 0
        self._cut_s = 0.0
        self._raise_at_us: int | None = None
        self._freed: set[str] = set()
        self._effects: dict[str, int] = {}
        self._applied: dict[str, tuple[str, int, float]] = {}
        """By process: its region, the revision that it has applied as far as known, and when it was last connected."""
        self.unreachable: set[str] = set()
        self.limit_steps: list[tuple[int, int]] = [(-(2**60), scenario.limit)]
        """The limit in force from an id on."""
        self.revision = 1
        self.newest_config: tuple[int, ConfigSet] = (1, self._documents())
        self.first_config = self.newest_config

    def begin(self) -> None:
        """Connect every process, and start the job that moves shares."""
        for region in self._world.regions.values():
            for name, _ in region.names:
                self.connected(region, name)
        self._world.loop.call_later(_EVERY_S, self._look)

    def change(self, change: scenarios.Change) -> None:
        """An operator changes the limit, or the shares."""
        before = self._rule
        burst = before.burst if change.burst is None else change.burst
        rule = self._wanted(msgspec.structs.replace(before, limit=change.limit, burst=burst), change.shares)
        self._rule = rule
        self._rules.append((self.revision + 1, rule))
        self._note_rules()
        self._move(before)

    def free(self, region: str) -> None:
        """An operator declares that a region that cannot acknowledge spends nothing any more."""
        if self._units.waiting:
            self._freed.add(region)

    def delete_region(self, region: str) -> None:
        """An operator deletes a region that has stopped: its share goes to the others, and is freed."""
        self._regions.remove(region)
        self._applied = {name: one for name, one in self._applied.items() if one[0] != region}
        self._redistribute()
        self.free(region)

    def add_region(self, region: str) -> None:
        """An operator puts a region back."""
        self._regions.append(region)
        self._redistribute()

    def _redistribute(self) -> None:
        before = self._rule
        self._rule = self._wanted(before, {name: self._world.scenario.regions[name] for name in self._regions})
        self._move(before)

    def reset(self) -> None:
        """An operator resets the client."""
        self.generation += 1
        self._publish()

    def reach_again(self, names: Iterable[str]) -> None:
        """Processes can be reached again."""
        self.unreachable.difference_update(names)

    def limit_in_force(self, id: int) -> int:
        """The largest limit that any region may go by under ``id``."""
        found = self.limit_steps[0][1]
        for from_id, limit in self.limit_steps:
            if from_id <= id:
                found = limit
        return found

    # What processes say and hear

    def connected(self, region: "SimulatedRegion", name: str) -> None:
        """Open a process's stream."""
        self._later(self._deliver, region, name)

    async def newest(self, process: SimulatedProcess) -> Newest | None:
        """The revision that should be in force in a process; ``None`` if it cannot reach the control plane."""
        await asyncio.sleep(_FIRST_S)
        await process.awake()
        if process.name in self.unreachable:
            return None
        found = Newest(revision=self.newest_config[0], digest=self.newest_config[1].digest)
        await asyncio.sleep(_FIRST_S)
        await process.awake()
        return found

    async def hear(self, process: SimulatedProcess, ack: Ack) -> None:
        """Receive a process's ACK."""
        self._later(self._heard, process, ack)

    def _later(self, call: object, *arguments: object) -> None:
        delay_s = self._world.chance.uniform(_FIRST_S, _LAST_S)
        self._world.loop.call_later(delay_s, call, *arguments)  # type: ignore[arg-type]

    def _deliver(self, region: "SimulatedRegion", name: str) -> None:
        process = region.processes[name]
        if not process.is_alive:
            return
        if name in self.unreachable or not process.is_running:
            self._world.loop.call_later(_RETRY_S, self._deliver, region, name)
            return
        revision, documents = self.newest_config
        if process.revision < revision:
            process.apply(documents, revision)
            region.disks[name] = self.newest_config
            self._note_rules()
        process.spawn(self._acknowledge(process, Ack(node=name, revision=revision, digest=documents.digest)))

    async def _acknowledge(self, process: SimulatedProcess, ack: Ack) -> None:
        said = await process.confirmed(ack)
        await process.awake()
        self._later(self._heard, process, said)

    def _heard(self, process: SimulatedProcess, ack: Ack) -> None:
        if process.name in self.unreachable:
            self._world.loop.call_later(_RETRY_S, self._heard, process, ack)
            return
        region = process.region.name
        _, before, _ = self._applied.get(process.name, (region, 0, 0.0))
        self._applied[process.name] = (region, max(before, ack.revision), self._world.loop.time())
        from_us = ack.effective.get(self._rule.id)
        if from_us is not None and ack.revision >= self._cut_revision:
            self._effects[region] = max(from_us, self._effects.get(region, 0))

    # Shares

    def _look(self) -> None:
        self._world.loop.call_later(_EVERY_S, self._look)
        now_s = self._world.loop.time()
        for region in self._world.regions.values():
            for name, process in region.processes.items():
                if name in self._applied and process.is_running and name not in self.unreachable:
                    self._applied[name] = (*self._applied[name][:2], now_s)
        if self._units.waiting:
            self._go_on(now_s)

    def _go_on(self, now_s: float) -> None:
        """What ``AdvanceJob`` does once a second."""
        rule, now_us = self._rule, self._world.now_us()
        connected = [
            _Connected(region, name, revision)
            for name, (region, revision, heard_s) in self._applied.items()
            if heard_s > now_s - _CONNECTED_S
        ]
        seen = situation(rule, self._units, self._cut_revision, self._freed, self._regions, connected, self._effects)
        if seen.waiting_for:
            if len(seen.unconfirmed) == len(seen.waiting_for) and now_s - self._cut_s > _CUT_AGAIN_S:
                self._units = cut_again(self._units, now_us)
                self._cut()
            return
        if rule.mode != "strict" and self._raise_at_us is None:
            self._raise_at_us = raise_at_us(rule, now_us)
        if rule.mode != "strict" and now_us < (self._raise_at_us or 0):
            return
        free_us = next_start_us(rule, now_us + SKEW_US) if seen.effective_us is None else seen.effective_us
        self._units = acknowledged(self._units, free_us)
        if self._parts.waiting:
            self._parts = acknowledged(self._parts, free_us)
        self._note_limit(free_us)
        self._publish()

    def _move(self, before: LimitRule) -> None:
        """What ``schedule_shares`` makes of a write that moves shares."""
        rule = self._rule
        now_us = self._world.now_us()
        if rule.mode == "shared":
            self._note_limit(now_us)
            self._publish()
            return
        stood = self._units, self._parts
        self._units, self._parts = rescheduled(rule, *stood, now_us, set(self._world.scenario.regions))
        if (self._units, self._parts) == stood:  # a move that waits goes on, by the cut that nodes have
            self._publish()
            return
        self._freed, self._raise_at_us = set(), None
        if not self._units.waiting:
            self._note_limit(now_us)
        elif rule.limit > before.limit:
            # at once, also in the window of the region whose clock is farthest behind
            behind_us = min(region.now_us() for region in self._world.regions.values())
            self._note_rise(id_at(grid_of(rule), behind_us), rule.limit)
        self._cut()

    def _cut(self) -> None:
        self._effects = {}
        self._cut_revision = self.revision + 1
        self._cut_s = self._world.loop.time()
        self._publish()

    def _note_rules(self) -> None:
        known = min(revision for region in self._world.regions.values() for revision, _ in region.disks.values())
        self._rules = self._rules[sum(since <= known for since, _ in self._rules) - 1 :]
        self.rules_in_force.append((self._world.now_us(), [rule for _, rule in self._rules]))

    def _note_limit(self, from_us: int) -> None:
        grid = grid_of(self._rule)
        id = id_at(grid, from_us)
        if self._rule.limit < self.limit_in_force(id):
            id += 1  # until it is over, the larger one was in force in this window too
        self.limit_steps.append((id, self._rule.limit))

    def _note_rise(self, id: int, limit: int) -> None:
        """Note that from ``id`` on the limit is at least ``limit``; a larger one that a region may still use stays."""
        later = sorted(from_id for from_id, _ in self.limit_steps if from_id > id)
        self.limit_steps += [(from_id, max(limit, self.limit_in_force(from_id))) for from_id in (id, *later)]

    def _publish(self) -> None:
        self.revision += 1
        self.newest_config = (self.revision, self._documents())
        for region in self._world.regions.values():
            for name, _ in region.names:
                self.connected(region, name)

    def _wanted(self, rule: LimitRule, shares: dict[str, int]) -> LimitRule:
        """The rule as the control plane makes it from its tables."""
        rule = msgspec.structs.replace(rule, on_store_failure="closed", steps=())
        parts = (ShareStep(limit=PARTS, shares=split(PARTS, shares)),) if rule.mode != "shared" else ()
        rule = msgspec.structs.replace(rule, shares=split(rule.limit, shares), parts=parts)
        if rule.mode != "strict" or rule.algorithm not in BUCKET_ALGORITHMS:
            return rule
        step = ShareStep(limit=rule.limit, shares=split(capacity(rule), shares))
        return msgspec.structs.replace(rule, steps=(step,))

    def _documents(self) -> ConfigSet:
        rule = self._rule
        if rule.mode != "shared":
            rule = published(rule, self._units, self._parts, self._since_us)
        url = "http://simulated" if rule.mode != "regional" else None
        values: Collection[tuple[str, str, msgspec.Struct]] = (
            *(("region", name, Region(region=name, peer_url=url)) for name in self._regions),
            ("plan", "simulated", Plan(plan="simulated", limits=(rule,))),
            ("client", CLIENT, Client(client=CLIENT, plan="simulated", generation=self.generation)),
            ("key", secret_sha256(API_KEY), ApiKey(sha256=secret_sha256(API_KEY), key_id="k", client=CLIENT)),
        )
        changes = [Change(kind, id, msgspec.Raw(msgspec.json.encode(value))) for kind, id, value in values]
        return ConfigSet.empty().with_changes(changes)
