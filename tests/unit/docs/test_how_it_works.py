"""Pages for who changes the code name what exists; numbers and pictures of flows come from their tables."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tools.docs.flows import FLOWS, picture, steps_of

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "docs/how-it-works.md", ROOT / "docs/glossary.md", ROOT / "CONTRIBUTING.md"]
MADE_UP = {"lua/session.lua"}
"""The example of a file that is new."""
_FILE = re.compile(r"`([\w./-]+/[\w.-]+\.(?:py|lua|md|yaml|toml|sql|json|txt|in))`")
_BESIDE = re.compile(r"`([\w./-]+/[\w.-]+\.(?:py|lua))`(?: \||:) `([\w.]+)`")
_LUA_FUNCTION = re.compile(r"^\s*(?:local )?function ([\w.:]+)", re.MULTILINE)


@cache
def _names_in(file: Path) -> frozenset[str]:
    """Functions, classes, their members, and constants of a Python file; functions of a script."""
    text = file.read_text("utf-8")
    if file.suffix == ".lua":
        return frozenset(_LUA_FUNCTION.findall(text))
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.Assign):
                names.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(prefix + node.target.id)

    collect(ast.parse(text).body, "")
    return frozenset(names)


def test_a_name_is_looked_for_in_its_own_class() -> None:
    names = _names_in(Path(__file__))
    assert "test_a_name_is_looked_for_in_its_own_class" in names
    assert "PAGES" in names
    assert "collect" not in names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_on_the_page_is_there(page: Path) -> None:
    named = set(_FILE.findall(page.read_text("utf-8")))
    assert named
    assert not [file for file in sorted(named) if file not in MADE_UP and not (ROOT / file).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_on_the_page_is_defined_in_the_file_beside_it(page: Path) -> None:
    beside = _BESIDE.findall(page.read_text("utf-8"))
    assert beside
    assert not [f"{file}: {name}" for file, name in beside if name not in _names_in(ROOT / file)]


@pytest.mark.parametrize("flow", FLOWS)
def test_the_number_of_files_is_what_the_flow_names(flow: str) -> None:
    said = re.search(rf"^\| \[{flow}\].*\| (\d+) \| \d+ \|$", PAGES[0].read_text("utf-8"), re.MULTILINE)
    assert said is not None
    assert int(said[1]) == len({step.file for step in steps_of(flow)})


@pytest.mark.parametrize("flow", FLOWS)
def test_the_picture_is_drawn_from_the_table(flow: str) -> None:
    assert (ROOT / f"docs/pictures/flow-{flow.lower()}.svg").read_text("utf-8") == picture(flow)


def test_figures_of_the_readme_stand_in_the_benchmarks_that_it_names() -> None:
    section = (ROOT / "README.md").read_text("utf-8").partition("## Figures\n")[2].partition("\n## ")[0]
    rows = [row for row in section.splitlines() if "**" in row]
    assert len(rows) >= 4
    for row in rows:
        (page,) = re.findall(r"\]\((docs/benchmarks[\w-]*\.md)\)", row)
        measured = (ROOT / page).read_text("utf-8")
        for figure in re.findall(r"\d[\d,.]*\d%?", row.split("|")[2]):
            assert figure in measured, f"{figure} is not in {page}"
