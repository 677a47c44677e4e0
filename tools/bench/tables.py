"""The figures as tables, the same for the terminal and for the document."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tools.bench.http_part import MOST_CONNECTIONS
from tools.bench.plan import BASELINE, FLOOR, VARIANTS
from tools.bench.results import Cell, HttpRun, Results, middle, paired_ratio
from tools.bench.script_part import LIMITS_A_CALL
from tools.bench.store_rules import ALGORITHMS
from tools.bench.targets import per_core, reference_runs, targets
from tools.bench.workload import BATCH, LIMITS

LOADS = {"even": "even", "poisson": "Poisson"}
_CELL = ("server", "limits")
_CPU = ("CPU µs", "store CPU µs")
_RATE = ("/s and core", "/s seen")
_LATENCIES = ("p50 µs", "p99 µs", "p99.9 µs")
_NOISE = ("others", "degraded")
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
        _targets(results), _servers(results), _compared(results), _connections(results, batched=False),
        _connections(results, batched=True), _open_loop(results), _script(results), _memory(results),
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
    return Table("Must reach", ("what", "wanted", "measured", "", "off by"), rows)


def _servers(results: Results) -> Table:
    measured = {cell.variant for cell in results.cells()}
    rows: list[Row] = [(variant.name, variant.title) for variant in VARIANTS if variant.name in measured]
    return Table("Servers", ("name", "what it is"), rows)


def _compared(results: Results) -> Table:
    """Single decisions at the most connections, against the baseline and the floor of the same repetition."""
    rows: list[Row] = []
    for cell in results.cells():
        if cell.load != "closed" or cell.batch > 1 or cell.connections != MOST_CONNECTIONS:
            continue
        runs = results.runs(cell)
        baseline, floor = (
            paired_ratio(runs, reference_runs(results, name), lambda run: run.server_cpu_us)
            for name in (BASELINE.name, FLOOR.name)
        )
        by_baseline = "-" if not baseline else f"1/{1 / baseline:.1f}" if baseline < 1 else f"{baseline:.2f}"
        by_floor = "-" if not floor else f"{floor:.2f}"
        rows.append((*_cell(cell), *_cpu(runs), *_rate(runs), by_baseline, by_floor))
    return Table(
        f"CPU for a decision, {MOST_CONNECTIONS} connections, closed loop",
        (*_CELL, *_CPU, *_RATE, "CPU, by baseline", "CPU, by floor"),
        rows,
    )


def _connections(results: Results, *, batched: bool) -> Table:
    rows: list[Row] = []
    for cell in results.cells():
        if cell.load == "closed" and (cell.batch > 1) == batched:
            runs = results.runs(cell)
            rows.append((
                *_cell(cell), str(cell.connections), *_cpu(runs), *_rate(runs), _calls(runs), *_latencies(runs),
                *_noise(runs),
            ))  # fmt: skip
    return Table(
        f"{BATCH} decisions a request: CPU for a decision, latency of a request" if batched
        else "One decision a request, closed loop",
        (*_CELL, "conn.", *_CPU, *_RATE, "a script call", *_LATENCIES, *_NOISE),
        rows,
    )  # fmt: skip


def _open_loop(results: Results) -> Table:
    rows: list[Row] = []
    for cell in results.cells():
        if cell.load != "closed":
            runs = results.runs(cell)
            rows.append((
                *_cell(cell), LOADS[cell.load], _whole([run.seen.offered_per_s for run in runs]), *_cpu(runs),
                *_latencies(runs), _whole([run.seen.late_p99_us for run in runs]), *_noise(runs),
            ))  # fmt: skip
    return Table(
        "Open loop at half of the capacity found, latency from the intended instant",
        (*_CELL, "arrivals", "offered/s", *_CPU, *_LATENCIES, "sent late p99", *_NOISE),
        rows,
    )


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
        (
            run.server,
            run.algorithm,
            f"{run.keys:,}",
            str(run.name_length),
            str(run.key_bytes),
            f"{run.bytes_a_limit:.1f}",
            run.allocator,
        )
        for run in results.memory
    ]
    return Table(
        "Memory of the store for one limit and subject (bytes, key and expiry included)",
        ("store", "algorithm", "subjects", "client's name", "its key", "bytes a limit", "allocator"),
        rows,
    )


def _cell(cell: Cell) -> tuple[str, str]:
    return cell.variant, str(len(LIMITS[cell.plan])) if cell.variant != FLOOR.name else "0"


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
    columns = ([one.p50_us for one in seen], [one.p99_us for one in seen], [one.p999_us for one in seen])
    p50, p99, p999 = (_whole(column) for column in columns)
    return p50, p99, p999


def _noise(runs: list[HttpRun]) -> tuple[str, str]:
    others = middle(run.others_share for run in runs) or 0.0
    degraded = middle(run.degraded_share for run in runs) or 0.0
    is_node = runs[0].cell.variant in {variant.name for variant in VARIANTS if variant.is_tidegate}
    return f"{others:.0%}", f"{degraded:.2%}" if is_node else "-"


def _whole(values: "Sequence[float | None]") -> str:
    found = middle(value for value in values if value is not None)
    return "-" if found is None else f"{found:,.0f}"


def _amount(value: float) -> str:
    if value < 1:
        return f"1/{1 / value:.1f}"
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.1f}"
