"""What the README says about others has a source."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
SOURCES = dict(re.findall(r"^\[(\w+)\]: (https://\S+)$", PAGE, re.MULTILINE))


def test_each_comparison_names_its_sources() -> None:
    section = PAGE.partition("## Why not ...\n")[2].partition("\n\n[")[0]
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in section.splitlines() if row.startswith("| [")
    ]
    assert len(rows) >= 6
    used = set(re.findall(r"\]\[(\w+)\]", section))
    assert used == SOURCES.keys()
    for name, better, _ in rows:
        assert re.fullmatch(r"\[[^]]+\]\[\w+\]", name)
        assert "][" in better, f"no source for {name}"
