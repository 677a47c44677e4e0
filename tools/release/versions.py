"""The version: `pyproject.toml` states it, every other place repeats it, and a difference is refused."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

STATED_IN = "pyproject.toml"
SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(rc|beta|alpha)\.\d+)?")


class Place(NamedTuple):
    """Where a file repeats the version: group ``v`` of every match of ``pattern``, of which there is at least one."""

    path: str
    pattern: re.Pattern[str]


_ARRAY = re.compile(r'^version = "(?P<v>[^"]*)"$', re.MULTILINE)
_CHART = re.compile(r"^(?:version|appVersion): (?P<v>\S+)$", re.MULTILINE)
_CHART_IMAGE = re.compile(r"image: tidegate:(?P<v>\S+)$", re.MULTILINE)
_CHART_DEPENDENCY = re.compile(r"\{ name: tidegate-[a-z-]+, version: (?P<v>[^,]+),")
_IMAGE = re.compile(r"registry\.example/tidegate(?::|, tag: )(?P<v>\d[\w.-]*\w)")
_NPM = re.compile(r'"name": "tidegate-express",\s+"version": "(?P<v>[^"]*)"')

PLACES = (
    Place(STATED_IN, _ARRAY),
    Place("clients/python/pyproject.toml", _ARRAY),
    Place("clients/express/package.json", _NPM),
    Place("clients/express/package-lock.json", _NPM),
    *(Place(f"helm/{chart}/Chart.yaml", _CHART) for chart in ("control-plane", "data-plane", "evaluation")),
    *(Place(f"helm/{chart}/Chart.yaml", _CHART_IMAGE) for chart in ("control-plane", "data-plane")),
    Place("helm/evaluation/Chart.yaml", _CHART_DEPENDENCY),
    *(Place(f"helm/evaluation/{name}", _IMAGE) for name in ("README.md", "files/README.head.md")),
    Place("docs/install-kubernetes.md", _IMAGE),
)


def version(root: Path) -> str:
    """The version that the tree at ``root`` states."""
    stated: str = tomllib.loads((root / STATED_IN).read_text())["project"]["version"]
    return stated


def differences(root: Path) -> list[str]:
    """A line for each place that says another version, or none."""
    wanted, found = version(root), []
    for place in PLACES:
        said = {match["v"] for match in place.pattern.finditer((root / place.path).read_text())}
        if said != {wanted}:
            found.append(f"{place.path} says {', '.join(sorted(said)) or 'no version'}, {STATED_IN} says {wanted}")
    return found


def set_version(root: Path, wanted: str) -> list[str]:
    """Write ``wanted`` into every place; returns the files that changed. Raises ``ValueError`` for what is none."""
    if SEMANTIC.fullmatch(wanted) is None:
        raise ValueError(f"{wanted} is no version like 1.2.3 or 1.2.3-rc.1")
    changed = set()
    for place in PLACES:
        file = root / place.path
        before = file.read_text()
        after = place.pattern.sub(lambda match: _replaced(match, wanted), before)
        if after != before:
            file.write_text(after)
            changed.add(place.path)
    return sorted(changed)


def _replaced(match: re.Match[str], wanted: str) -> str:
    start, end = match.start("v") - match.start(), match.end("v") - match.start()
    return match[0][:start] + wanted + match[0][end:]
