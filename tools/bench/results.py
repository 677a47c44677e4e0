"""What was measured, as it goes into the JSON file and into the report."""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Literal

import msgspec

from tools.bench.machine import Machine
from tools.bench.seen import Seen

Load = Literal["closed", "even", "poisson"]
"""Closed loop (the next request follows the answer), or arrivals at a fixed rate, evenly spaced or random."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What one figure of a table stands for."""

    variant: str
    plan: str
    batch: int
    connections: int
    load: Load


class HttpRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one cell. CPU times are microseconds a decision."""

    cell: Cell
    repetition: int
    seen: Seen
    server_cpu_us: float
    store_cpu_us: float
    decisions_per_s: float
    decisions_per_call: float | None
    """How many decisions one script call held, on average."""
    others_share: float
    """The part of the server's core that other processes (or the hypervisor) took meanwhile, 0 to 1."""
    degraded_share: float
    """The part of its decisions that a node made without its store, 0 to 1."""


class ScriptRun(msgspec.Struct, frozen=True, kw_only=True):
    """CPU of the store for one limit, when a script call holds ``limits``."""

    server: str
    algorithm: str
    limits: int
    repetition: int
    cpu_us: float


class MemoryRun(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of the store for one limit and subject, key and expiry included."""

    server: str
    algorithm: str
    keys: int
    name_length: int
    """Characters of a client's name; ``key_bytes`` is the whole key."""
    key_bytes: int
    bytes_a_limit: float
    allocator: str


class Results(msgspec.Struct, kw_only=True):
    """Everything of one benchmark."""

    machine: Machine
    started: str
    revision: str = "unknown"
    """The commit that was measured; two where it changed meanwhile."""
    quick: bool
    parts: list[str]
    repetitions: int
    took_s: float = 0.0
    http: list[HttpRun] = []
    script: list[ScriptRun] = []
    memory: list[MemoryRun] = []
    skipped: list[str] = []

    def runs(self, cell: Cell) -> list[HttpRun]:
        """The repetitions of a cell, in order."""
        return [run for run in self.http if run.cell == cell]

    def cells(self) -> list[Cell]:
        """Every cell that was measured, in the order measured first."""
        return list(dict.fromkeys(run.cell for run in self.http))

    def script_cpu_us(self, server: str, algorithm: str, limits: int) -> float | None:
        """The median over the repetitions."""
        return middle(
            run.cpu_us for run in self.script if (run.server, run.algorithm, run.limits) == (server, algorithm, limits)
        )


def middle(values: Iterable[float]) -> float | None:
    """The median, or ``None`` of nothing."""
    known = list(values)
    return median(known) if known else None


def paired_ratio(measured: list[HttpRun], reference: list[HttpRun], value: Callable[[HttpRun], float]) -> float | None:
    """The median over repetitions of measured / reference: what slows the machine for a while slows both."""
    by_repetition = {run.repetition: value(run) for run in reference}
    return middle(value(run) / by_repetition[run.repetition] for run in measured if by_repetition.get(run.repetition))
