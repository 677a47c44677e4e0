"""`python -m tools.release`: make and check the artefacts of a version, or set the version everywhere."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tools.release.checksums import sha256
from tools.release.contents import faults, registry_hosts
from tools.release.making import Step, differing, make
from tools.release.sources import SourceError, exported
from tools.release.versions import differences, set_version

ROOT = Path(__file__).parents[2]
app = typer.Typer(help="Artefacts of a version. Nothing is uploaded.", no_args_is_help=True)
console = Console(highlight=False)


@app.command()
def build(
    *,
    out: Annotated[Path, typer.Option(help="Where to; what is there goes.")] = ROOT / "dist",
    changed: Annotated[bool, typer.Option("--changed", help="Also from files that differ from the commit.")] = False,
    key: Annotated[str | None, typer.Option(help="Sign the charts: the key's name in the keyring.")] = None,
    keyring: Annotated[Path | None, typer.Option(help="A PGP keyring with the secret key.")] = None,
) -> None:
    """Make every artefact twice, compare both, look into each; exits with 1 when something may not be released."""
    trouble = differences(ROOT)
    if (key is None) != (keyring is None):
        raise typer.BadParameter("--key and --keyring go together")
    signing = None if key is None or keyring is None else (key, keyring)
    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-release-") as scratch,
        Progress(*columns, console=console) as bars,
    ):
        step = _steps(bars)
        try:
            sources = exported(ROOT, Path(scratch) / "one")
            if sources.changed and not changed:
                trouble.append("files differ from the commit, or are not tracked: commit them, or say --changed")
            shutil.rmtree(out, ignore_errors=True)
            artefacts = make(sources, out, step, signing)
            with step("the same once more, and compared"):
                again = exported(ROOT, Path(scratch) / "two")
                make(again, Path(scratch) / "again", _quietly)
        except SourceError as error:
            console.print(f"{error}", style="red", markup=False)
            raise typer.Exit(1) from None
        trouble += [f"{name} differs from one build to the next" for name in differing(out, Path(scratch) / "again")]
        with step("secrets, registries, packages"):
            trouble += faults(sorted(out.iterdir()), registry_hosts())
    _show(out, artefacts, signed=signing is not None)
    for line in trouble:
        console.print(line, style="red", markup=False)
    raise typer.Exit(1 if trouble else 0)


@app.command(name="version")
def set_everywhere(wanted: Annotated[str, typer.Argument(metavar="VERSION")]) -> None:
    """Write a version into every place that states it."""
    try:
        changed = set_version(ROOT, wanted)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    for path in changed:
        console.print(path)


def _steps(bars: Progress) -> Step:
    @contextmanager
    def step(what: str) -> Iterator[None]:
        task = bars.add_task(what, total=1)
        yield
        bars.update(task, completed=1)

    return step


@contextmanager
def _quietly(_what: str) -> Iterator[None]:
    yield


def _show(out: Path, artefacts: list[Path], *, signed: bool) -> None:
    table = Table("file", "size", "SHA-256", box=None, header_style="bold")
    for path in sorted(out.iterdir()):
        table.add_row(path.name, decimal(path.stat().st_size), sha256(path)[:16])
    console.print(table)
    console.print(
        f"{len(artefacts)} artefacts in {out}, made twice with equal bytes unless a line below says otherwise"
    )
    if not signed:
        console.print("not made: signatures of charts (.prov), for want of a key; the provenance is a claim, unsigned")


if __name__ == "__main__":
    app()
