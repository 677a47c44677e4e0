"""What a benchmark runs: which variants with which cells, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.bench.http_part import MOST_CONNECTIONS
from tools.bench.results import Cell, Load
from tools.bench.variant import Variant
from tools.bench.variants import (
    fastapi_limits,
    fastapi_redis,
    nginx_constant,
    tidegate_fastapi,
    tidegate_lane,
    tidegate_shared,
)
from tools.bench.workload import BATCH

BASELINE = fastapi_redis.VARIANT
FLOOR = nginx_constant.VARIANT
DOOR = tidegate_fastapi.VARIANT
LANE = tidegate_lane.VARIANT
ASKED_OTHERWISE = (tidegate_lane.AUTHORIZE, tidegate_lane.DENIED, tidegate_shared.VARIANT)
COMPARED = (BASELINE, fastapi_limits.SLIDING, fastapi_limits.MOVING, FLOOR)
VARIANTS = (*COMPARED, DOOR, LANE, *ASKED_OTHERWISE)

CONNECTIONS = (1, 4, 16, MOST_CONNECTIONS)
QUICK_CONNECTIONS = (4, MOST_CONNECTIONS)
OPEN_LOADS: tuple[Load, ...] = ("even", "poisson")

PARTS = ("http", "script", "memory")
"""Servers over HTTP; CPU of the store; memory of the store."""


@dataclass(frozen=True)
class Effort:
    """How much is done: seconds a cell, repetitions, how much the figures of one run may be trusted."""

    repetitions: int
    seconds: int
    script_seconds: float
    quick: bool


FULL = Effort(repetitions=3, seconds=2, script_seconds=0.3, quick=False)
QUICK = Effort(repetitions=1, seconds=1, script_seconds=0.1, quick=True)


def cells_of(variant: Variant, *, quick: bool) -> list[Cell]:
    """The cells of a variant in the order in which they run."""
    if variant is LANE:
        return _lane_cells(quick=quick)
    counts = (MOST_CONNECTIONS,) if quick else (4, MOST_CONNECTIONS)
    cells = [_cell(variant, plan, connections=count) for plan in variant.plans for count in counts]
    if variant is FLOOR:  # what an open loop's tail is on this machine, and by this generator, with next to no server
        cells += [
            _cell(variant, plan, connections=MOST_CONNECTIONS, load=load)
            for plan in variant.plans
            for load in _open_loads(quick=quick)
        ]
    if variant.batch_path is not None and not quick:
        cells += [_cell(variant, plan, connections=MOST_CONNECTIONS, batch=BATCH) for plan in variant.plans]
    return cells


def _lane_cells(*, quick: bool) -> list[Cell]:
    counts: Sequence[int] = QUICK_CONNECTIONS if quick else CONNECTIONS
    cells = []
    for plan in LANE.plans:
        cells += [_cell(LANE, plan, connections=count) for count in counts]
        cells += [_cell(LANE, plan, connections=MOST_CONNECTIONS, load=load) for load in _open_loads(quick=quick)]
        cells += [_cell(LANE, plan, connections=count, batch=BATCH) for count in counts]
    return cells


def _open_loads(*, quick: bool) -> Sequence[Load]:
    return OPEN_LOADS[:1] if quick else OPEN_LOADS


def _cell(variant: Variant, plan: str, *, connections: int, batch: int = 1, load: Load = "closed") -> Cell:
    return Cell(variant=variant.name, plan=plan, batch=batch, connections=connections, load=load)
