"""The figures as tables, the same for the terminal and for the document."""

from collections.abc import Iterator
from typing import NamedTuple

from bench.http_part import MOST_CONNECTIONS
from bench.plan import BASELINE, FLOOR, LANE, VARIANTS
from bench.results import Cell, HttpRun, Results, middle, paired_ratio
from bench.script_part import LIMITS_A_CALL
from bench.store_rules import ALGORITHMS
from bench.targets import per_core, reference_runs, targets
from bench.workload import LIMITS

TITLES = {variant.name: variant.title for variant in VARIANTS}
LOADS = {"even": "evenly spaced", "poisson": "random (Poisson)"}
NOT_MEASURED = "not measured"


Row = tuple[str, ...]


class Table(NamedTuple):
    """A title, what the columns are, rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: list[Row]


def all_tables(results: Results) -> Iterator[Table]:
    """Every table that has something to show."""
    for table in (
        _targets(results), _compared(results), _connections(results), _batches(results), _open_loop(results),
        _script(results), _memory(results),
    ):  # fmt: skip
        if table.rows:
            yield table


def _targets(results: Results) -> Table:
    rows: list[Row] = []
    for target in targets(results):
        verdict = {None: NOT_MEASURED, True: "reached", False: "**missed**"}[target.reached]
        distance = "-" if target.distance is None else f"{target.distance:+.0%}"
        sign = ">=" if target.at_least else "<="
        wanted = f"{sign} {_amount(target.wanted)} {target.unit}"
        measured = "-" if target.measured is None else f"{_amount(target.measured)} {target.unit}"
        rows.append((target.what, wanted, measured, verdict, distance))
    return Table("Must reach", ("what", "wanted", "measured", "", "from the target (above 0 is worse)"), rows)


def _compared(results: Results) -> Table:
    """Single decisions at the most connections."""
    rows: list[Row] = []
    for cell in results.cells():
        if cell.load != "closed" or cell.batch > 1 or cell.connections != MOST_CONNECTIONS:
            continue
        runs = results.runs(cell)
        baseline, floor = (
            paired_ratio(runs, reference_runs(results, name), lambda run: run.server_cpu_us)
            for name in (BASELINE.name, FLOOR.name)
        )
        rows.append((
            TITLES[cell.variant], _limits(cell), *_cpu(runs), *_rate(runs), *_latencies(runs),
            "-" if not baseline else f"1/{1 / baseline:.1f}" if baseline < 1 else f"{baseline:.2f}",
            "-" if not floor else f"{floor:.2f}", *_noise(runs),
        ))  # fmt: skip
    return Table(
        f"One decision a request, closed loop, {MOST_CONNECTIONS} connections",
        (
            "server", "limits", "CPU µs, server", "CPU µs, store", "decisions/s and core", "decisions/s seen",
            "p50 µs", "p99 µs", "p99.9 µs", "CPU by baseline", "CPU by floor", "others on its core", "degraded",
        ),
        rows,
    )  # fmt: skip


def _connections(results: Results) -> Table:
    rows: list[Row] = []
    for cell in results.cells():
        if cell.load == "closed" and cell.batch == 1:
            runs = results.runs(cell)
            rows.append((
                TITLES[cell.variant], _limits(cell), str(cell.connections), *_cpu(runs), *_rate(runs), _calls(runs),
                *_latencies(runs), *_noise(runs),
            ))  # fmt: skip
    return Table(
        "One decision a request, closed loop, by connections",
        (
            "server", "limits", "connections", "CPU µs, server", "CPU µs, store", "decisions/s and core",
            "decisions/s seen", "decisions a script call", "p50 µs", "p99 µs", "p99.9 µs", "others on its core",
            "degraded",
        ),
        rows,
    )  # fmt: skip


def _batches(results: Results) -> Table:
    rows: list[Row] = []
    for cell in results.cells():
        if cell.batch > 1:
            runs = results.runs(cell)
            rows.append((
                TITLES[cell.variant], _limits(cell), str(cell.connections), *_cpu(runs), *_rate(runs), _calls(runs),
                *_latencies(runs), *_noise(runs),
            ))  # fmt: skip
    return Table(
        "A hundred decisions a request, closed loop (CPU for a decision, latency of a request)",
        (
            "server", "limits", "connections", "CPU µs, server", "CPU µs, store", "decisions/s and core",
            "decisions/s seen", "decisions a script call", "p50 µs", "p99 µs", "p99.9 µs", "others on its core",
            "degraded",
        ),
        rows,
    )  # fmt: skip


def _open_loop(results: Results) -> Table:
    rows: list[Row] = []
    for cell in results.cells():
        if cell.load != "closed":
            runs = results.runs(cell)
            rows.append((
                TITLES[cell.variant], _limits(cell), LOADS[cell.load], _whole([run.seen.offered_per_s for run in runs]),
                *_cpu(runs), *_latencies(runs), _whole([run.seen.late_p99_us for run in runs]), *_noise(runs),
            ))  # fmt: skip
    return Table(
        "Open loop at half of the capacity found, latency from the intended instant",
        (
            "server", "limits", "arrivals", "offered/s", "CPU µs, server", "CPU µs, store", "p50 µs", "p99 µs",
            "p99.9 µs", "generator late, p99 µs", "others on its core", "degraded",
        ),
        rows,
    )  # fmt: skip


def _script(results: Results) -> Table:
    sizes = [size for size in LIMITS_A_CALL if any(run.limits == size for run in results.script)]
    rows: list[Row] = []
    for server in dict.fromkeys(run.server for run in results.script):
        for algorithm in ALGORITHMS:
            figures = (results.script_cpu_us(server, algorithm, size) for size in sizes)
            rows.append((server, algorithm, *("-" if cpu is None else f"{cpu:.2f}" for cpu in figures)))
    return Table(
        "CPU of the store for one limit (µs), by limits a script call",
        ("store", "algorithm", *(f"{size} a call" for size in sizes)),
        rows,
    )


def _memory(results: Results) -> Table:
    rows: list[Row] = [
        (run.server, run.algorithm, f"{run.keys:,}", f"{run.key_bytes:.0f}", f"{run.bytes_a_limit:.1f}", run.allocator)
        for run in results.memory
    ]
    return Table(
        "Memory of the store for one limit and subject (bytes, key and expiry included)",
        ("store", "algorithm", "subjects", "of which the key's text", "bytes a limit", "allocator"),
        rows,
    )


def _limits(cell: Cell) -> str:
    return str(len(LIMITS[cell.plan])) if cell.variant != FLOOR.name else "0"


def _cpu(runs: list[HttpRun]) -> tuple[str, str]:
    server, store = middle(run.server_cpu_us for run in runs), middle(run.store_cpu_us for run in runs)
    return f"{server or 0:.1f}", "-" if runs[0].decisions_per_call is None else f"{store or 0:.1f}"


def _rate(runs: list[HttpRun]) -> tuple[str, str]:
    return _whole([per_core(run) for run in runs]), _whole([run.decisions_per_s for run in runs])


def _calls(runs: list[HttpRun]) -> str:
    found = middle(run.decisions_per_call for run in runs if run.decisions_per_call is not None)
    return "-" if found is None else f"{found:.1f}"


def _latencies(runs: list[HttpRun]) -> tuple[str, str, str]:
    seen = [run.seen for run in runs]
    return _whole([one.p50_us for one in seen]), _whole([one.p99_us for one in seen]), _whole([
        one.p999_us for one in seen
    ])  # fmt: skip


def _noise(runs: list[HttpRun]) -> tuple[str, str]:
    others = middle(run.others_share for run in runs) or 0.0
    tidegate = runs[0].cell.variant in {LANE.name, "fastapi-door"}
    return f"{others:.0%}", str(sum(run.degraded for run in runs)) if tidegate else "-"


def _whole(values: "list[float] | list[float | None]") -> str:
    found = middle(value for value in values if value is not None)
    return "-" if found is None else f"{found:,.0f}"


def _amount(value: float) -> str:
    if value < 1:
        return f"1/{1 / value:.1f}"
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.1f}"
