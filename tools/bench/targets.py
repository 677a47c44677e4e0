"""What must be reached (the decision engine's issue), and whether this run did."""

from collections.abc import Iterator
from typing import NamedTuple

from tools.bench.http_part import MOST_CONNECTIONS
from tools.bench.plan import BASELINE, FLOOR, LANE
from tools.bench.results import Cell, HttpRun, Load, Results, middle, paired_ratio
from tools.bench.store_rules import ALGORITHMS, USUAL_NAME_LENGTH
from tools.bench.workload import BATCH

BASELINE_SHARE = {"one": 1 / 14, "three": 1 / 10}
FLOOR_FACTOR = {"one": 2.4, "three": 3.3}
OPEN_LOOP_P99_US = 1_000.0
BATCHED_PER_S_AND_CORE = 150_000.0
STORE_CPU_US_A_LIMIT = 4.0
STORE_LIMITS_A_CALL = 32
STORE_BYTES_A_LIMIT = 110.0
BATCH_CONNECTIONS = 4
"""Enough to keep a node busy with batches of a hundred; more of them only wait."""
LIMITS_TITLE = {"one": "1 limit", "three": "3 limits"}


class Target(NamedTuple):
    """``measured`` is ``None`` when this run did not measure it. Both figures are in ``unit``."""

    what: str
    unit: str
    wanted: float
    measured: float | None
    at_least: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether it was reached; ``None`` when it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    @property
    def distance(self) -> float | None:
        """How far beyond the target the figure is, as a share of the target; below 0 is better than asked for."""
        if self.measured is None:
            return None
        return self.wanted / self.measured - 1 if self.at_least else self.measured / self.wanted - 1


def targets(results: Results) -> Iterator[Target]:
    """Every target with what was measured."""
    for plan, share in BASELINE_SHARE.items():
        what = f"Lane, {LIMITS_TITLE[plan]}, {MOST_CONNECTIONS} connections: CPU of the node for a decision"
        yield Target(f"{what}, by the baseline's", "x", share, _cpu_ratio(results, plan, BASELINE.name))
        yield Target(f"{what}, by the floor's", "x", FLOOR_FACTOR[plan], _cpu_ratio(results, plan, FLOOR.name))
    for plan, title in LIMITS_TITLE.items():
        runs = results.runs(lane_cell(plan, load="even"))
        p99_us = middle(run.seen.p99_us for run in runs)
        yield Target(f"Lane, {title}, open loop at half capacity: p99", "µs", OPEN_LOOP_P99_US, p99_us)
    batched = middle(
        per_core(run) for run in results.runs(lane_cell("one", batch=BATCH, connections=BATCH_CONNECTIONS))
    )
    yield Target(
        f"Lane, 1 limit, batches of {BATCH}: decisions a second and core", "/s", BATCHED_PER_S_AND_CORE, batched,
        at_least=True,
    )  # fmt: skip
    for algorithm in ALGORITHMS:
        cpu_us = results.script_cpu_us("Valkey", algorithm, STORE_LIMITS_A_CALL)
        what = f"Valkey, `{algorithm}`, {STORE_LIMITS_A_CALL} limits a call: CPU for a limit"
        yield Target(what, "µs", STORE_CPU_US_A_LIMIT, cpu_us)
    for algorithm in ALGORITHMS:
        found = middle(
            run.bytes_a_limit
            for run in results.memory
            if (run.server, run.algorithm, run.name_length) == ("Valkey", algorithm, USUAL_NAME_LENGTH)
        )
        yield Target(f"Valkey, `{algorithm}`: memory for a limit and subject", "bytes", STORE_BYTES_A_LIMIT, found)


def per_core(run: HttpRun) -> float:
    """Decisions a second that one core of the server is good for."""
    return 1e6 / run.server_cpu_us


def lane_cell(plan: str, *, batch: int = 1, load: Load = "closed", connections: int = MOST_CONNECTIONS) -> Cell:
    """A cell of the lane, by default at the most connections."""
    return Cell(variant=LANE.name, plan=plan, batch=batch, connections=connections, load=load)


def reference_runs(results: Results, variant: str) -> list[HttpRun]:
    """The runs of a baseline at the most connections."""
    return results.runs(Cell(variant=variant, plan="one", batch=1, connections=MOST_CONNECTIONS, load="closed"))


def _cpu_ratio(results: Results, plan: str, reference: str) -> float | None:
    return paired_ratio(
        results.runs(lane_cell(plan)), reference_runs(results, reference), lambda run: run.server_cpu_us
    )
