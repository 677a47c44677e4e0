"""Tables on the terminal, and the document: text that explains, figures that only come from the results."""

from collections.abc import Iterator

from rich.table import Table as RichTable

from tools.bench.http_part import MOST_CONNECTIONS
from tools.bench.plan import FULL, QUICK
from tools.bench.results import Results
from tools.bench.tables import Table, all_tables
from tools.bench.workload import CLIENTS, LIMITS, ROUTES

ABOUT = """\
# Benchmarks

Written by `make bench` (`python -m tools.bench`): no figure in this file was typed by hand. Run it on your own machine
before you rely on any of them; what carries over best are the ratios, because everything was measured in the same run.

## How it is measured

- The server under test runs alone on one core; the load generator and the store (Valkey) share the other one. One
  process, one worker, keep-alive HTTP/1.1 over the loopback.
- {clients:,} clients with a key and an address each ask in turn for one of {routes} routes, with the body that the
  API's description shows (`api_key`, `ip`, `method`, `path`, `cost`). The limits are so high that nothing is denied.
  All servers get the same bytes. Three variants of the lane differ: forward-auth by GET with the key and the address in
  headers, as gateways ask; clients that have used up a limit of 1 an hour, so that all are denied; and a node whose
  limit is shared with a region (a node and a Valkey of its own, beside the load) that is told what each client uses.
- The node starts from its signed snapshot with everything at its default: all headers, metrics, deadlines. Before
  it is measured, the benchmark checks that it counts in the store and shows all of its headers; afterwards, that it
  counted as many decisions as were answered.
- 1 limit: {one}. 3 limits: {three}. The baseline always has one.
- CPU is the process's own clock in the kernel, before and after a run, divided by the decisions. "/s and core" is
  one second divided by that; "/s seen" is what came out, with the rest of the machine as busy as it was.
- Closed loop: wrk, its percentiles corrected for coordinated omission. Open loop: a generator of ours that sends at
  fixed instants whether or not answers are there, over {connections} connections; latency counts from the intended
  instant, the generator's own lateness included. With a raised priority the server and its store are then in the
  real-time class (SCHED_RR): the store would wait for the generator's time slices, with which it shares a core here.
- Every figure is the median of {repetitions} repetitions of {seconds} s, the variants interleaved. Ratios are taken
  within a repetition first. "Others" is the part of the server's core that something else took meanwhile: where it is
  high, read the latencies and "seen" with care, the CPU figures less so. "A script call" is how many decisions one
  call of the store held. "Degraded" are decisions that a node made without its store. "Off by" is above 0 where a
  figure is worse than wanted.
"""


def document(results: Results) -> str:
    """The whole of docs/benchmarks.md."""
    return "\n".join(_lines(results)) + "\n"


def terminal_table(table: Table) -> RichTable:
    """A table for the terminal."""
    shown = RichTable(title=table.title, title_justify="left")
    for position, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if position == 0 else "right")
    for row in table.rows:
        shown.add_row(*(cell.replace("**", "").replace("`", "") for cell in row))
    return shown


def _lines(results: Results) -> Iterator[str]:
    effort = QUICK if results.quick else FULL
    yield ABOUT.format(
        clients=CLIENTS, routes=ROUTES, one=_described("one"), three=_described("three"), connections=MOST_CONNECTIONS,
        repetitions=results.repetitions, seconds=effort.seconds,
    )  # fmt: skip
    yield "## Where\n"
    yield from _machine(results)
    for table in all_tables(results):
        yield f"\n## {table.title}\n"
        yield from _markdown(table)
    if results.skipped:
        yield "\n## Not measured\n"
        yield from (f"- {reason}" for reason in results.skipped)


def _machine(results: Results) -> Iterator[str]:
    machine = results.machine
    yield from _markdown(Table("", ("", ""), [
        ("started", results.started),
        ("commit", results.revision),
        ("took", f"{results.took_s / 60:.1f} min"),
        ("processor", f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB"),
        ("system", f"{machine.system}, kernel {machine.kernel}"),
        ("Python", machine.python),
        ("versions", ", ".join(f"{name} {number}" for name, number in machine.versions.items())),
        ("load average at the start", f"{machine.load_average:.1f}"),
        ("priority of what was measured", "ordinary" if not machine.niceness else f"raised (nice {machine.niceness})"),
    ]))  # fmt: skip


def _described(plan: str) -> str:
    return ", ".join(f"`{rule.algorithm}` by {rule.scope}" for rule in LIMITS[plan])


def _markdown(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(table.columns) + " |"
    yield "|" + "---|" * len(table.columns)
    for row in table.rows:
        yield "| " + " | ".join(row) + " |"
