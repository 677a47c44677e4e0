"""`python -m tools.simulate`: a scenario file, or worlds by chance, judged; as a table, a picture and an exit code."""

from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from data_plane.store.script_host import ScriptHost
from tidegate.terminal import Fitting, output
from tools.simulate.changing_runs import BUCKETS, changing_buckets, changing_scenario
from tools.simulate.changing_runs import NAME as CHANGING
from tools.simulate.checks import Outcome
from tools.simulate.overload.command import BUNDLED as OVERLOAD
from tools.simulate.overload.command import simulate_overload
from tools.simulate.overload.scenario import is_overload
from tools.simulate.overload.scenario import load as load_overload
from tools.simulate.random_runs import random_scenario, run
from tools.simulate.scenario import Scenario, ScenarioError, load
from tools.simulate.soundness import require_sound
from tools.simulate.summary import KeptError, show_many, with_kept
from tools.simulate.world import World

BUNDLED = Path(__file__).with_name("scenarios")


def simulate(
    scenario: str | None,
    *,
    seed: int | None = None,
    runs: int = 1,
    out: Path | None = None,
    keep: Path | None = None,
    list_scenarios: bool = False,
) -> None:
    """Run the protocol between regions in virtual time. Exits with 1 when a promise was broken, 2 on a bad file."""
    console = output()
    if list_scenarios:
        _list(console)
        return
    try:
        raise typer.Exit(_run(console, scenario, seed, runs, out, keep))
    except (ScenarioError, KeptError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except OSError as error:
        if error.filename is None:
            raise  # what was written to is not a file of ours
        console.print(f"{error.filename}: {error.strerror}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None


def _run(
    console: Console, scenario: str | None, seed: int | None, runs: int, out: Path | None, keep: Path | None
) -> int:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # now: not after a long run
    worlds = {CHANGING: changing_scenario, BUCKETS: changing_buckets}
    if scenario is None or scenario in worlds:
        world = random_scenario if scenario is None else worlds[scenario]
        return _by_chance(console, world, seed or 0, runs, out, keep)
    path = _path_of(scenario)
    if is_overload(path):
        if keep is not None:
            raise KeptError("--keep is not for scenarios of overload")
        return simulate_overload(console, path, seed=seed, runs=runs, out=out)
    found = load(path)
    try:
        require_sound(found)
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from None
    first, host = found.seed if seed is None else seed, ScriptHost()
    outcomes = with_kept(keep, range(first, first + runs), lambda number: run(found, number, host))
    _show(console, found, outcomes[0])
    if runs > 1:
        show_many(console, outcomes)
    if out is not None:
        _draw(console, found, first, out)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _path_of(name: str) -> Path:
    if not Path(name).is_file():
        for folder in (BUNDLED, OVERLOAD):
            if (folder / f"{name}.toml").exists():
                return folder / f"{name}.toml"
    return Path(name)


def _list(console: Console) -> None:
    table = Table("scenario", "mode", "about", box=None)
    table.add_row(
        CHANGING, "strict sliding_window", "By chance: limit and shares change while processes die and stores restart."
    )
    table.add_row(
        BUCKETS,
        "strict and shared buckets",
        "By chance: the same, and burst, while a region is silent.",
    )
    for path in sorted(BUNDLED.glob("*.toml")):
        found = load(path)
        table.add_row(found.name, f"{found.mode} {found.algorithm}", found.about)
    for path in sorted(OVERLOAD.glob("*.toml")):
        overload = load_overload(path)
        table.add_row(overload.name, "overload", overload.about)
    console.print(Fitting(table))


def _by_chance(
    console: Console, world: Callable[[int], Scenario], first: int, runs: int, out: Path | None, keep: Path | None
) -> int:
    host = ScriptHost()
    outcomes = with_kept(keep, range(first, first + runs), lambda seed: run(world(seed), seed, host))
    for outcome in outcomes:
        if outcome.violations:
            console.print(f"seed {outcome.seed}: {'; '.join(outcome.violations)}", style="red", markup=False)
    if runs == 1:
        _show(console, world(first), outcomes[0])
    if out is not None:
        _draw(console, world(first), first, out)
    show_many(console, outcomes)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _show(console: Console, scenario: Scenario, outcome: Outcome) -> None:
    """Print one run: tables by region and by window, and the figures of the exchange."""
    table = Table(title=f"{scenario.name}: {scenario.mode} {scenario.algorithm}, seed {outcome.seed}")
    for heading in ("region", "share", "admitted", "denied"):
        table.add_column(heading, justify="left" if heading == "region" else "right")
    for region, share in scenario.regions.items():
        table.add_row(region, str(share), str(outcome.admitted[region]), str(outcome.denied.get(region, 0)))
    console.print(Fitting(table))
    windows = Table("window", "admitted", "limit", "used", box=None)
    for use in outcome.windows:
        used = f"{use.admitted / use.limit:.1%}" if use.limit else "-"
        windows.add_row(str(use.number), str(use.admitted), str(use.limit), used)
    console.print(windows)
    facts = Table(box=None, show_header=False)
    facts.add_row("overshoot", f"{outcome.overshoot} (allowed: {outcome.bound})")
    facts.add_row("oldest unknown count", f"{outcome.stale_s:.2f} s")
    facts.add_row("transfers", str(outcome.transfers))
    facts.add_row("messages", str(outcome.messages))
    for reason, times in sorted(outcome.refusals.items()):
        facts.add_row(f"refused: {reason}", str(times))
    console.print(facts)
    for violation in outcome.violations:
        console.print(f"BROKEN: {violation}", style="red", markup=False)


def _draw(console: Console, scenario: Scenario, seed: int, folder: Path) -> None:
    from tools.simulate.draw import picture  # noqa: PLC0415  the extra `pictures`

    world = World(scenario, seed, ScriptHost())
    world.run()
    path = folder / f"{scenario.name}-{seed}.svg"
    path.write_text(picture(world), "utf-8")
    console.print(f"picture: {path}", markup=False, soft_wrap=True)
