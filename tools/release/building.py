"""Each kind of artefact from the exported sources, by the tool that its users' tools agree with."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import helm_python

from tools.release.archives import normalise
from tools.release.sources import SourceError, Sources

CHARTS = ("control-plane", "data-plane", "evaluation")


def build_python(sources: Sources, project: str, out: Path) -> None:
    """The sdist and the wheel of ``project`` (a folder), by hatchling, without a look at any registry."""
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(out)], sources, project)


def build_npm(sources: Sources, project: str, out: Path) -> None:
    """The package of ``project``, by `npm pack`; its scripts are not run."""
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("npm is missing (Debian package npm): the npm package cannot be packed")
    _run([npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", str(out)], sources, project)


def build_charts(sources: Sources, out: Path) -> list[Path]:
    """The charts by Helm's own engine; what one depends on lies inside it."""
    helm = sources.directory / "helm"
    helm_python.dependency_update(helm / "evaluation")
    lock = helm / "evaluation" / "Chart.lock"
    instant = datetime.fromtimestamp(sources.epoch_s, UTC).isoformat()
    lock.write_text(re.sub(r"^generated: .*$", f'generated: "{instant}"', lock.read_text(), flags=re.MULTILINE))
    made = [Path(helm_python.package(helm / chart, destination=out)) for chart in CHARTS]
    for archive in made:
        normalise(archive, sources.epoch_s)
    return made


def _run(command: list[str], sources: Sources, project: str) -> None:
    env = os.environ | {"SOURCE_DATE_EPOCH": str(sources.epoch_s)}
    place = sources.directory / project
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SourceError(f"{' '.join(command)} failed in {project}:\n{done.stdout}{done.stderr}")
