"""What agents and nodes of a region share through the store: factors, demand and reports, in JSON."""

from collections.abc import Sequence

import msgspec

from data_plane.config.load_gate import FULL
from data_plane.load.controller import MILLI, BackendDecision, ControlState, Report
from tidegate.contract.load import BackendLoad, ClassLoad


class BackendFactors(msgspec.Struct, frozen=True, kw_only=True):
    """A backend's factors (millionths), and its controller's state for the agent that decides next."""

    backend: str
    policy: str
    whole: int
    classes: dict[int, int]
    floor: int
    reserve: int
    demand: dict[int, int]
    state: ControlState


class SharedFactors(msgspec.Struct, frozen=True, kw_only=True):
    """The factors of all backends of a region, decided by ``node`` at ``at_us``."""

    at_us: int
    node: str
    backends: tuple[BackendFactors, ...] = ()


class NodeDemand(msgspec.Struct, frozen=True, kw_only=True):
    """A node's demand by backend and priority, in thousandths of a unit a second."""

    at_us: int
    backends: dict[str, dict[int, int]] = {}


class StoredReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report in the store."""

    reporter: str
    at_us: int
    signals: dict[str, float]
    weight: int = 1

    def report(self) -> Report:
        """The report as the controller takes it."""
        return Report(self.reporter, self.at_us, self.signals, self.weight)


def explain(entry: BackendFactors, at_us: int, node: str) -> BackendLoad:
    """A backend's factor and its reason, for people."""
    state = entry.state
    return BackendLoad(
        backend=entry.backend,
        policy=entry.policy,
        factor=entry.whole / FULL,
        reason=state.reason,
        since=state.since_us / 1_000_000,
        decided_at=at_us / 1_000_000,
        decided_by=node,
        signal=state.signal,
        load=None if state.smoothed is None else round(state.smoothed, 4),
        reporters=state.reporters,
        classes=tuple(
            ClassLoad(
                priority=priority,
                factor=entry.classes[priority] / FULL,
                offered_per_s=entry.demand.get(priority, 0) / MILLI,
            )
            for priority in sorted(entry.classes)
        ),
    )


def factors_of(backend: str, policy: str, floor: float, reserve: float, decided: BackendDecision) -> BackendFactors:
    """The factors to publish of a decision."""
    return BackendFactors(
        backend=backend,
        policy=policy,
        whole=decided.whole,
        classes=decided.classes,
        floor=round(floor * FULL),
        reserve=round(reserve * FULL),
        demand=decided.demand,
        state=decided.state,
    )


def explain_all(shared: SharedFactors) -> Sequence[BackendLoad]:
    """Every backend's factor and its reason, for people."""
    return [explain(factors, shared.at_us, shared.node) for factors in shared.backends]
