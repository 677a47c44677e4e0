"""One release: every artefact into a folder, then the files that speak about them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import helm_python

from tools.release import building
from tools.release.bill import bill_of_materials
from tools.release.checksums import checksums, sha256
from tools.release.notes import release_notes
from tools.release.provenance import provenance
from tools.release.sources import Sources
from tools.release.versions import version

Step = Callable[[str], AbstractContextManager[None]]


def make(sources: Sources, out: Path, step: Step, signing: tuple[str, Path] | None = None) -> list[Path]:
    """Fill ``out``; returns the artefacts, without the files about them. ``signing``: a key's name and its keyring."""
    out.mkdir(parents=True, exist_ok=True)
    number = version(sources.directory)
    with step("wheel and sdist of tidegate"):
        building.build_python(sources, ".", out)
    with step("wheel and sdist of tidegate-client"):
        building.build_python(sources, "clients/python", out)
    with step("npm package of tidegate-express"):
        building.build_npm(sources, "clients/express", out)
    with step("charts"):
        charts = building.build_charts(sources, out)
    artefacts = sorted(path for path in out.iterdir() if path.is_file())
    with step("SBOM, provenance, notes, checksums"):
        bill = bill_of_materials(sources.directory, number, artefacts, sources.epoch_s)
        (out / f"tidegate-{number}.cdx.json").write_text(bill)
        (out / f"tidegate-{number}.provenance.json").write_text(provenance(sources, artefacts))
        notes = release_notes((sources.directory / "CHANGELOG.md").read_text(), number)
        (out / "RELEASE_NOTES.md").write_text(notes)
        if signing is not None:
            for chart in charts:
                helm_python.sign(chart, key=signing[0], keyring=signing[1])
        (out / "SHA256SUMS").write_text(checksums(path for path in out.iterdir() if path.is_file()))
    return artefacts


def differing(one: Path, other: Path) -> list[str]:
    """Files that two builds made differently, or that only one has. Signatures have a time of their own."""
    names = {path.name for folder in (one, other) for path in folder.iterdir()} - {"SHA256SUMS"}
    return sorted(name for name in names if not name.endswith(".prov") and not _equal(one / name, other / name))


def _equal(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and sha256(one) == sha256(other)
