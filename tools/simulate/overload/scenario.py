"""What an overload scenario says. Times are seconds from its start; rates are multiples of the backend's capacity."""

import tomllib
from pathlib import Path

import msgspec

from tidegate.contract.load import AdaptivePolicy, policy_violations
from tools.simulate.scenario import ScenarioError


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class of clients by the priority of its plan: what it asks for normally, as a share of capacity."""

    name: str
    priority: int
    share: float
    clients: int = 100


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From ``at_s`` on every class (or those in ``of``) asks ``demand`` times its share; ``capacity``: of the usual."""

    at_s: float
    demand: float = 1.0
    capacity: float = 1.0
    of: tuple[str, ...] = ()


class Reporters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who reports cpu and queue delay once a second, ``noise`` (a share, Gaussian) off the truth.

    ``dies_at_s``: the last one goes silent. ``lies``: the first one always says this load instead.
    """

    count: int = 3
    noise: float = 0.0
    delay_s: float = 0.2
    dies_at_s: float | None = None
    lies: float | None = None


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must come out for the adaptive limit."""

    most_excess: float = 10.0
    """Work admitted beyond capacity, in seconds of full capacity."""
    least_critical: float = 0.99
    """Share of the highest class's requests that must be served."""
    recovered_within_s: float = 60.0
    most_oscillations: int = 1
    least_goodput: float = 0.5
    """Work that was worth something during the overload, as a share of capacity."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backend of ``per_second`` units of capacity, who asks, and what is different for a while."""

    name: str
    about: str = ""
    per_second: float = 100.0
    service_ms: float = 50.0
    patience_s: float = 2.0
    """A client gives up after this; what the backend still does for it is lost."""
    queue_s: float = 10.0
    """A backend refuses what would wait longer than this."""
    duration_s: float = 240.0
    overload: tuple[float, float] = (60.0, 120.0)
    """From when to when it is not itself: what is judged."""
    seed: int = 1
    fixed: float = 1.2
    """The fixed limit, as a share of the usual capacity."""
    capacity: float | None = None
    """The capacity that the adaptive limit is told, as a share of the usual; none without it."""
    reserve: float = 0.0
    groups: tuple[Group, ...] = (
        Group(name="critical", priority=50, share=0.2, clients=20),
        Group(name="standard", priority=10, share=0.2, clients=100),
        Group(name="low", priority=0, share=0.2, clients=300),
    )
    phases: tuple[Phase, ...] = ()
    reporters: Reporters = Reporters()
    policy: dict[str, object] = {}
    expect: Expectation = Expectation()

    def adaptive_policy(self) -> AdaptivePolicy:
        """The policy as the config would state it; ``policy`` in the file holds what differs from the defaults."""
        critical = max(group.priority for group in self.groups)
        members = {"policy": self.name, "critical": critical, "reserve": self.reserve, **self.policy}
        return msgspec.convert(members, AdaptivePolicy)

    def phase_at(self, at_s: float, group: str) -> Phase:
        """What holds for a class at an instant."""
        now = Phase(at_s=0.0)
        for phase in self.phases:
            if phase.at_s <= at_s and (not phase.of or group in phase.of):
                now = phase
        return now

    def capacity_at(self, at_s: float) -> float:
        """Units a second that the backend does at an instant."""
        share = 1.0
        for phase in self.phases:
            if phase.at_s <= at_s:
                share = phase.capacity
        return self.per_second * share


def load(path: Path) -> Scenario:
    """Read a scenario file. Raises ``ScenarioError`` that says what is wrong with it."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8"))["overload"], Scenario)
        faults = list(policy_violations(found.adaptive_policy()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, KeyError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    if faults:
        raise ScenarioError(f"{path}: policy.{faults[0].field}: {faults[0].message}")
    return found


def is_overload(path: Path) -> bool:
    """Whether a scenario file is about overload, by its one table."""
    try:
        return path.read_text("utf-8").lstrip().startswith(("[overload]", "#")) and "[overload]" in path.read_text(
            "utf-8"
        )
    except (OSError, UnicodeDecodeError):
        return False
