"""Overload scenarios for `python -m tools.simulate`: every way to protect the backend side by side."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tidegate.terminal import Fitting
from tools.simulate.overload.adaptive import Adaptive
from tools.simulate.overload.limiters import Aimd, Fixed, Gradient2, Limiter, Unprotected
from tools.simulate.overload.measures import Measures, measure, violations
from tools.simulate.overload.scenario import Scenario, load
from tools.simulate.overload.world import Second, run

BUNDLED = Path(__file__).with_name("scenarios")


class Run(NamedTuple):
    """One limiter's run and what it comes to; ``broken`` is empty for those that promise nothing."""

    name: str
    seconds: list[Second]
    measures: Measures
    broken: tuple[str, ...]


def limiters(scenario: Scenario) -> Mapping[str, Callable[[int], Limiter]]:
    """What is compared, by name; each is made for a seed."""
    found: dict[str, Callable[[int], Limiter]] = {
        "no limit": lambda _: Unprotected(),
        "fixed limit": lambda _: Fixed(scenario.fixed * scenario.per_second),
        "Gradient2": lambda _: Gradient2(),
        "AIMD": lambda _: Aimd(),
        "adaptive": lambda seed: Adaptive(scenario, seed, with_capacity=False),
    }
    if scenario.capacity is not None:
        found["adaptive, with capacity"] = lambda seed: Adaptive(scenario, seed, with_capacity=True)
    return found


def compare(scenario: Scenario, seed: int, only: Sequence[str] | None = None) -> list[Run]:
    """Run each limiter on the same requests."""
    runs = []
    for name, make in limiters(scenario).items():
        if only is None or name in only:
            seconds = run(scenario, make(seed), seed)
            measures = measure(scenario, seconds)
            promised = tuple(violations(scenario, measures)) if name.startswith("adaptive") else ()
            runs.append(Run(name, seconds, measures, promised))
    return runs


def simulate_overload(console: Console, path: Path, *, seed: int | None, runs: int, out: Path | None) -> int:
    """Compare, print, draw; the exit code. Raises ``ScenarioError``."""
    scenario = load(path)
    first = scenario.seed if seed is None else seed
    compared = compare(scenario, first)
    console.print(Fitting(table(scenario, first, compared)))
    broken = [f"seed {first}, {run.name}: {text}" for run in compared for text in run.broken]
    for number in range(first + 1, first + runs):
        again = compare(scenario, number, ["adaptive", "adaptive, with capacity"])
        broken += [f"seed {number}, {run.name}: {text}" for run in again for text in run.broken]
    if runs > 1:
        console.print(f"{runs} runs, {len(broken)} promises broken", markup=False)
    for text in broken:
        console.print(f"BROKEN: {text}", style="red", markup=False)
    if out is not None:
        from tools.simulate.overload.draw import picture  # noqa: PLC0415  the extra `pictures`

        target = out / f"{scenario.name}-{first}.svg"
        target.write_text(picture(scenario, {run.name: run.seconds for run in compared}), "utf-8")
        console.print(f"picture: {target}", markup=False, soft_wrap=True)
    return 1 if broken else 0


def table(scenario: Scenario, seed: int, runs: Sequence[Run]) -> Table:
    """The figures side by side; seconds and seconds of full capacity."""
    found = Table(title=f"{scenario.name}: {scenario.about}, seed {seed}", box=None, padding=(0, 1, 0, 0))
    found.add_column("limiter")
    for heading in (
        "excess s", "goodput", "wasted", "critical served", "p99 queue s", "reacted s", "oscillations", "recovered s",
    ):  # fmt: skip
        found.add_column(heading, justify="right")
    for one in runs:
        figures = one.measures
        found.add_row(
            one.name, f"{figures.excess:.1f}", f"{figures.goodput:.0%}", f"{figures.wasted:.0%}",
            f"{figures.critical:.1%}", f"{figures.p99_delay_s:.2f}", f"{figures.reacted_after_s:g}",
            str(figures.oscillations), f"{figures.recovered_after_s:g}",
        )  # fmt: skip
    return found
