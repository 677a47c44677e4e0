"""What the deciding node of a region shares with the others through the store, and what nodes tell it."""

import msgspec

from data_plane.config.load_classes import FULL
from data_plane.load.controller import ControlState
from data_plane.load.decision import MILLI, Decided
from data_plane.load.signals import Said
from tidegate.contract.load import BackendLoad, ClassLoad


class BackendFactors(msgspec.Struct, frozen=True, kw_only=True):
    """One backend: what nodes apply (millionths), and where its controller stands for whoever decides next."""

    backend: str
    policy: str
    whole: int
    classes: dict[int, int]
    floor: int
    reserve: int
    demand: dict[int, int]
    state: ControlState


class SharedFactors(msgspec.Struct, frozen=True, kw_only=True):
    """All backends of a region, as ``node`` decided at ``at_us``."""

    at_us: int
    node: str
    backends: tuple[BackendFactors, ...] = ()


class NodeDemand(msgspec.Struct, frozen=True, kw_only=True):
    """What a node was asked for by backend and priority, in thousandths of a unit a second."""

    at_us: int
    backends: dict[str, dict[int, int]] = {}


class SaidEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A report as it rests in the store."""

    reporter: str
    at_us: int
    signals: dict[str, float]
    weight: int = 1

    def said(self) -> Said:
        """The same for the controller."""
        return Said(self.reporter, self.at_us, self.signals, self.weight)


def explained(entry: BackendFactors, at_us: int, node: str) -> BackendLoad:
    """A backend's factor and why, for people."""
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


def entry_of(backend: str, policy: str, floor: float, reserve: float, decided: Decided) -> BackendFactors:
    """What is shared of a decision."""
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
