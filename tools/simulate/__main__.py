"""`python -m tools.simulate`."""

from pathlib import Path
from typing import Annotated

import typer

from tools.simulate.command import simulate as run_simulation

app = typer.Typer(add_completion=False)


@app.command()
def simulate(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario file, or the name of a bundled one. Without it: worlds by chance.")
    ] = None,
    *,
    seed: Annotated[int | None, typer.Option(help="The first seed; the scenario's own without it.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="How many seeds to run, one after the other.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write a picture (SVG) of the first run into this folder.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep each run's outcome in this file; those that are there are not run again.")
    ] = None,
    list_scenarios: Annotated[bool, typer.Option("--list", help="List the bundled scenarios.")] = False,
) -> None:
    """Run regions in virtual time, by the service's own scripts and services.

    Exits with 1 when a promise was broken, 2 on a bad file.
    """
    run_simulation(scenario, seed=seed, runs=runs, out=out, keep=keep, list_scenarios=list_scenarios)


if __name__ == "__main__":
    app()
