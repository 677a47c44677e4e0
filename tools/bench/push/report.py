"""What was wanted, what was measured, and whether that reaches it; as Markdown."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tools.bench import machine


class Goal(NamedTuple):
    """One promise of the control plane, and the figure that shows it."""

    figure: str
    wanted: str
    reached: Callable[[Any], bool]


GOALS = (
    Goal("load: apply: whole command, s", "< 60", lambda value: value < 60),
    Goal("load: a node loads them: wall_s", "< 3", lambda value: value < 3),
    Goal("load: a node loads them: rss_mb", "< 300", lambda value: value < 300),
    Goal("push: change to a node, p99, s", "< 1", lambda value: value < 1),
    Goal("writes: writes", "10,000", lambda value: value >= 10_000),
    Goal("writes: lost updates", "0", lambda value: value == 0),
    Goal("writes: gaps in their numbers", "0", lambda value: value == 0),
    Goal("writes: nodes that do not end on the last", "0", lambda value: value == 0),
    Goal("load: leader killed to another leads, s", "< 15", lambda value: value < 15),
    *(
        Goal(f"usage: {size}: what-if, {limits}, {days} days, s", "< 23", lambda value: value < 23)
        for size, days in (("10,000 clients, 31 days", 31), ("100,000 clients, 7 days", 7))
        for limits in ("one limit", "three limits")
    ),
)
"""Those of the issue, and that what-if always answers; ``docs/benchmarks-control-plane.md`` has them first."""


def shown(value: object) -> str:
    """A figure as people read it."""
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def page(figures: Mapping[str, Any]) -> str:
    """The whole page; goals of parts that were not measured say so."""
    lines = [
        "# Benchmarks of the control plane",
        "",
        "Written by `python -m tools.bench.push --write`: no figure in this file was typed by hand. Each part",
        "(`--part`) has a durable Postgres and two replicas of its own, and every client a key. Simulated nodes hold",
        "real streams: they read, ACK, and keep no index. 64 writers in parallel read, change and write clients with",
        "`If-Match`, as often as the run had time for. The file of `tidegate apply` is JSON, as programs make it: YAML",
        "takes longer, as below. For `usage` there is one replica, and Postgres is filled in bulk: clients of one",
        "plan, each active 12 hours a day at two endpoints, one in a hundred 20 times as much; what-if judges all,",
        "or says that it is too much. All of it shares the machine named below with the load, and with others that",
        "worked at the same time: run it on yours before you rely on a figure.",
        "",
        "| figure | wanted | measured | reached |",
        "|---|---|---|---|",
    ]
    for goal in GOALS:
        value = figures.get(goal.figure)
        measured = "not measured" if value is None else shown(value)
        reached = "?" if value is None else "yes" if goal.reached(value) else "**no**"
        lines.append(f"| {goal.figure} | {goal.wanted} | {measured} | {reached} |")
    lines += ["", "Everything that was measured:", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {shown(value)} |" for name, value in figures.items()]
    here = machine.describe()
    lines += ["", (f"The last part was measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {here.cpu}, "
                  f"{here.cores} cores, {here.memory_gib:.1f} GiB, {here.system}, Python {here.python}, load average "
                  f"{here.load_average:.1f}."), ""]  # fmt: skip
    return "\n".join(lines)
