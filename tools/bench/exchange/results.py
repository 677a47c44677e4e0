"""What was measured."""

from typing import NamedTuple

import msgspec

from tools.bench.machine import Machine


class Setting(NamedTuple):
    """``rate``: requests a second in all."""

    keys: int
    rate: int
    regions: int


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, measured. CPU is a share of one core, of the busiest node; what is sent is of the busiest region."""

    setting: Setting
    seconds: float
    rate: float
    """As it came through."""
    cpu: float
    cpu_alone: float
    """At the same load, under ``regional`` limits, of which nothing is told to anybody."""
    cpu_idle: float
    """Without load: the background's work, heartbeats between regions included."""
    sent_mb_s: float
    """To one peer."""
    messages_s: float
    cells_s: float

    @property
    def exchange(self) -> float:
        """The part of the CPU that the exchange takes."""
        return self.cpu - self.cpu_alone


class Plentiful(msgspec.Struct, frozen=True, kw_only=True):
    """Requests under strict limits whose rights are plenty, and what was said about them."""

    requests: int
    messages: int
    questions: int


class Skewed(msgspec.Struct, frozen=True, kw_only=True):
    """A window of a strict limit under more demand than it admits, 95:5 against equal shares."""

    limit: int
    window_s: int
    delay_ms: int
    asked: int
    admitted: dict[str, int]
    questions: int
    degraded: int

    @property
    def used(self) -> float:
        """The part of the limit that was admitted."""
        return sum(self.admitted.values()) / self.limit


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """``None`` and nothing: not measured."""

    machine: Machine
    costs: list[Cost] = []
    plentiful: Plentiful | None = None
    skewed: Skewed | None = None
