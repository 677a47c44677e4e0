"""The contents of a scenario file. Times are seconds from its start, which is the beginning of a window (or epoch)."""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from tidegate.contract.limits import Algorithm, LimitRule, Mode

FaultKind = Literal[
    "cut",  # `groups` of regions hear only their own; with `one_way`, the first group does not hear the second
    "delay",  # messages from `region` to `peer` (or to all) take `by_s` longer
    "kill_node",  # node number `node` of `region` dies, and starts at `until_s`, `from_snapshot` with its first config
    "kill_agent",  # the same of an agent
    "stop_node",  # node number `node` stands still until `until_s`
    "stop_agent",  # the same of an agent
    "kill_all",  # every process of the region
    "lose_power",  # every process, and the store, which comes back with its data as another process
    "lose_store",  # the region's store comes back empty
    "flush_store",  # FLUSHALL: connections go on
    "restore_store",  # it comes back as it was `by_s` ago
    "evict",  # a store that evicts forgets the counter
    "step_clock",  # the region's clock moves by `by_s`
    "reset",  # the client is reset
    "unreachable_config",  # the region's processes, or `only` that one ("n0", "a1"), hear nothing of the control plane
    "free_share",  # an operator frees the region's share
    "add_region",  # an operator puts the region back, with its first share
    "delete_region",  # an operator deletes the region, whose share is freed
]


class Demand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests of one region, at random instants; or ``burst`` of them at ``from_s``."""

    region: str
    per_second: float = 0.0
    from_s: float = 0.0
    until_s: float = 1e9
    burst: int = 0
    cost: int = 1


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault at ``at_s``; until ``until_s`` if it lasts."""

    kind: FaultKind
    at_s: float
    until_s: float = 1e9
    groups: tuple[tuple[str, ...], ...] = ()
    one_way: bool = False
    region: str = ""
    peer: str = ""
    node: int = 0
    by_s: float = 0.0
    from_snapshot: bool = False
    only: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator changes the limit, the shares, or a bucket's ``burst``; ``None`` leaves it as it is."""

    at_s: float
    limit: int
    burst: int | None = None
    shares: dict[str, int]


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One-way delays are uniform in ``delay_ms`` +- ``jitter_ms``; a share ``spikes`` of them is ten times as long."""

    delay_ms: float = 50.0
    jitter_ms: float = 10.0
    spikes: float = 0.0
    loss: float = 0.0
    duplicates: float = 0.0
    calm_from_s: float = 1e9
    """From here on nothing is lost, doubled or slower than usual."""


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Expectations beside the mode's promise. Windows are counted from 0 at the start."""

    least_used: dict[str, float] = {}
    """Share of the limit that must be admitted in a window."""
    most_admitted: dict[str, int] = {}
    """Units that may be admitted in a window at most."""
    most_messages: int | None = None
    most_transfers: int | None = None
    settled_within_s: float | None = None
    """Longest time that a change may take to be known everywhere, while nothing is cut."""
    most_denied: dict[str, int] = {}
    """Units that a region may have denied in all."""
    least_admitted: dict[str, int] = {}
    """Units that a region must have admitted in all."""
    most_over_windows: int | None = None
    """Units that may be admitted in all windows together."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One world: a counter in ``regions`` (name -> share), demand, and faults."""

    name: str
    about: str = ""
    mode: Mode = "strict"
    algorithm: Algorithm = "fixed_window"
    limit: int = 1000
    window_s: float = 10.0
    burst: int | None = None
    regions: dict[str, int]
    duration_s: float = 30.0
    still_s: float = 0.0
    """The last seconds, without demand or faults, after which all regions must agree; 0: no such check."""
    nodes: int = 2
    agents: int = 2
    seed: int = 1
    epoch_s: float = 600.0
    """Buckets: when the epoch of loans ends in which the scenario begins."""
    clocks: dict[str, float] = {}
    evicting: tuple[str, ...] = ()
    demand: tuple[Demand, ...] = ()
    network: Network = Network()
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()
    expect: Expectation = Expectation()

    def rule(self) -> LimitRule:
        """The limit as the config would state it."""
        return LimitRule(
            id=1,
            name="simulated",
            algorithm=self.algorithm,
            limit=self.limit,
            window_us=round(self.window_s * 1e6),
            burst=self.burst,
            mode=self.mode,
            shares=self.regions,
        )


class ScenarioError(Exception):
    """The file is not a scenario; the message says where."""


def load(path: Path) -> Scenario:
    """Read a TOML file. Raises ``ScenarioError``."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Scenario)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ScenarioError(f"{path}: {error}") from error
