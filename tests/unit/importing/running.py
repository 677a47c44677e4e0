"""`tidegate import` as a shell runs it."""

from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from typer.testing import CliRunner

from tidegate.cli import app


class Imported(NamedTuple):
    """``content`` is the file, ``comments`` its head, ``remarks`` what stood on standard error."""

    content: dict[str, Any]
    comments: str
    remarks: str


def import_file(kind: str, *files: Path) -> Imported:
    result = CliRunner().invoke(app, ["import", kind, *map(str, files)], env={"COLUMNS": "400", "TERM": "dumb"})
    assert result.exit_code == 0, result.stderr
    content = YAML(typ="safe").load(result.stdout)
    assert isinstance(content, dict)
    return Imported(content, "".join(line for line in result.stdout.splitlines(True) if line[0] == "#"), result.stderr)


def refused(kind: str, *files: Path) -> str:
    """What is said to a file that is refused; nothing is written."""
    result = CliRunner().invoke(app, ["import", kind, *map(str, files)], env={"COLUMNS": "400", "TERM": "dumb"})
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr
