"""Links of every page lead somewhere where GitHub shows it; what the README says about others has a source."""

import re
from functools import cache
from pathlib import Path

import pytest

from testing.pages import ROOT, pages

README = (ROOT / "README.md").read_text("utf-8")
SOURCES = dict(re.findall(r"^\[(\w+)\]: (https://\S+)$", README, re.MULTILINE))
SHOWN = [*pages(), "CODE_OF_CONDUCT.md", ".github/pull_request_template.md"]


def without_blocks(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(page), re.MULTILINE)
    words = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return frozenset(re.sub(r"[^\w\- ]", "", word).replace(" ", "-") for word in words)


@pytest.mark.parametrize("page", SHOWN)
def test_every_link_leads_somewhere(page: str) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(ROOT / page)):
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        if not file.startswith(("http:", "https:", "mailto:")) and not (
            target.exists() and (not anchor or anchor in anchors(target))
        ):
            lost.append(link)
    assert lost == []


def test_each_comparison_names_its_sources() -> None:
    section = README.partition("## Why not ...\n")[2].partition("\n\n[")[0]
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in section.splitlines() if row.startswith("| [")
    ]
    assert len(rows) >= 6
    assert set(re.findall(r"\]\[(\w+)\]", section)) == SOURCES.keys()
    for name, better, _ in rows:
        assert re.fullmatch(r"\[[^]]+\]\[\w+\]", name)
        assert "][" in better, f"no source for {name}"
