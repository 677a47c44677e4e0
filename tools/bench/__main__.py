"""`python -m tools.bench`: measure, print, write docs/benchmarks.md."""

import dataclasses
import signal
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.bench.capacity import write as write_capacity
from tools.bench.errors import BenchError
from tools.bench.machine import raise_priority
from tools.bench.plan import FULL, PARTS, QUICK, VARIANTS
from tools.bench.render import document, terminal_table
from tools.bench.results import HttpRun, MemoryRun, Results, ScriptRun
from tools.bench.run import Steps, Wanted, run, total_figures
from tools.bench.tables import all_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="About a minute: one short repetition, fewer cells.")] = False,
    part: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(PARTS)}.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help=f"Only these servers: {', '.join(one.name for one in VARIANTS)}.")
    ] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, max=20, help="How often each figure is taken.")] = None,
    seconds: Annotated[int | None, typer.Option(min=1, max=60, help="How long each run over HTTP takes.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every single figure here.")] = None,
    again: Annotated[Path | None, typer.Option("--from", help="Measure nothing: show what --json wrote.")] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the document here. A full run writes docs/benchmarks.md by default.")
    ] = None,
    priority: Annotated[
        int, typer.Option(min=0, max=20, help="Raise the priority (needs root), where other work shares the machine.")
    ] = 0,
) -> None:
    """Measure the decision path against baselines and a floor, all in one run on this machine."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    try:
        if again is not None:
            results = msgspec.json.decode(again.read_bytes(), type=Results)
        else:
            results = _measure(_wanted(part, variant, repetitions, seconds, quick=quick), priority, console)
    except BenchError as error:
        console.print(f"[red]{error}")
        sys.exit(1)
    for table in all_tables(results):
        console.print(terminal_table(table))
    for reason in results.skipped:
        console.print(f"[red]not measured: {reason}")
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    is_full = not quick and part is None and variant is None
    target = write or (DOCUMENT if is_full else None)
    if target is not None:
        target.write_text(document(results))
        console.print(f"wrote {target}")
    if target == DOCUMENT:
        write_capacity()
    sys.exit(1 if results.skipped else 0)


def _wanted(
    part: list[str] | None, variant: list[str] | None, repetitions: int | None, seconds: int | None, *, quick: bool
) -> Wanted:
    effort = QUICK if quick else FULL
    if seconds is not None:
        effort = dataclasses.replace(effort, seconds=seconds)
    names = {one.name: one for one in VARIANTS}
    unknown = [name for name in part or () if name not in PARTS] + [name for name in variant or () if name not in names]
    if unknown:
        raise BenchError(f"nothing is called {', '.join(unknown)}: see --help")
    chosen = [names[name] for name in variant] if variant else list(VARIANTS)
    return Wanted(
        parts=tuple(name for name in PARTS if not part or name in part), variants=tuple(chosen), effort=effort,
        repetitions=repetitions or effort.repetitions,
    )  # fmt: skip


def _measure(wanted: Wanted, priority: int, console: Console) -> Results:
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    if priority:
        raise_priority(-priority)
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        refresh_per_second=1,  # it takes time from the core that makes the load
    )  # fmt: skip
    with progress:
        task = progress.add_task("preparing", total=total_figures(wanted))

        def doing(what: str) -> None:
            progress.update(task, description=what)
            if not console.is_terminal:
                console.print(what)

        def done(figure: HttpRun | ScriptRun | MemoryRun) -> None:
            progress.advance(task)
            if isinstance(figure, HttpRun):
                cell = figure.cell
                progress.console.print(
                    f"{cell.variant} {cell.plan} x{cell.batch} {cell.load} {cell.connections} connections: "
                    f"{figure.server_cpu_us:.1f} + {figure.store_cpu_us:.1f} µs, {figure.decisions_per_s:,.0f}/s, "
                    f"p50 {figure.seen.p50_us:,.0f} p99 {figure.seen.p99_us:,.0f} µs, "
                    f"others {figure.others_share:.0%}"
                    + (f", [red]{figure.degraded_share:.2%} degraded" if figure.degraded_share else ""),
                    highlight=False,
                )

        return run(wanted, Steps(doing, done))


if __name__ == "__main__":
    typer.run(main)
