"""``python -m helm.readme``: write charts' README.md from their values; ``--check``: exit with 1 where one differs."""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CHARTS = [Path(__file__).parents[1] / name for name in ("control-plane", "data-plane", "evaluation")]
LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w-]*):")


AS_IT_IS = {"periodSeconds", "runAsNonRoot", "capabilities", "requests", "grafana_dashboard"}
"""A map with one of these goes to Kubernetes as a whole, and is one value."""


def comments(text: str) -> dict[str, str]:
    """What stands directly above each value, by its dotted name."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    said: list[str] = []
    for line in text.splitlines():
        if line.strip().startswith("#"):
            said.append(line.strip().lstrip("#- "))
            continue
        if match := LINE.match(line):
            indent = len(match["indent"])
            path = [*(part for part in path if part[0] < indent), (indent, match["key"])]
            found[".".join(key for _, key in path)] = " ".join(said)
        said = []
    return found


def rows(values: dict[str, Any], described: dict[str, str], above: str = "") -> Iterator[str]:
    """A row for each value with its default, and for each group that has a word of its own."""
    for key, value in values.items():
        name = f"{above}{key}"
        word = described.get(name, "")
        if not isinstance(value, dict) or not value or AS_IT_IS & set(value):
            yield f"| `{name}` | `{_default(value)}` | {word} |"
            continue
        if word:
            yield f"| **{name}** | | {word} |"
        yield from rows(value, described, f"{name}.")


def _default(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_default(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_default(part) for part in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def page(chart: Path) -> str:
    """The README of a chart: what it is, how it is installed, every value."""
    about = YAML(typ="safe").load(chart / "Chart.yaml")
    text = (chart / "values.yaml").read_text()
    table = rows(YAML(typ="safe").load(text), comments(text))
    preface = (chart / "files" / "README.head.md").read_text().strip()
    return "\n".join(
        [f"# {about['name']}", "", about["description"], "", preface, "", "## Values", "",
         "| value | default | |", "|---|---|---|", *table, "",
         "Written by `python -m helm.readme` from `values.yaml`; `values.schema.json` refuses what cannot be.", ""]
    )  # fmt: skip


def files() -> dict[Path, str]:
    """Every README and what must be in it."""
    return {chart / "README.md": page(chart) for chart in CHARTS if chart.exists()}


def main() -> int:
    """Write, or check."""
    arguments = argparse.ArgumentParser(prog="python -m helm.readme", description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; say what differs")
    check = arguments.parse_args().check
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path} differs: run python -m helm.readme", file=sys.stderr)  # noqa: T201
        else:
            path.write_text(files()[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
