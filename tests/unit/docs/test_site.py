"""The site of the documentation: every link leads somewhere, nothing comes from elsewhere, references are whole."""

import json
import re
import socket
from importlib.metadata import version
from pathlib import Path

import pytest

from data_plane.settings import Settings
from tidegate.admin.resources import RESOURCES
from tools.docs.reference import ROOT, metrics_in_code
from tools.docs.site import build_site

# Of links only: pictures, scripts, styles and frames are loaded whether or not anybody follows them.
LOADED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly, without network: a link or an anchor that leads nowhere, or a page in no menu, is an error."""

    def refuse(_socket: socket.socket, address: object) -> None:
        raise AssertionError(f"the site asks {address}")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket.socket, "connect", refuse)
        return build_site(tmp_path_factory.mktemp("site"))


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text("utf-8"))


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 80
    assert not [(page.name, found) for page in pages for found in LOADED.findall(page.read_text("utf-8"))]
    styles = [style for style in site.rglob("*.css") if re.search(r"url\([\"']?(?:https?:)?//", style.read_text())]
    assert not styles


def test_versions_lie_beside_each_other(site: Path) -> None:
    listed = json.loads((site.parent / "versions.json").read_text())
    assert listed == [{"version": version("tidegate"), "title": version("tidegate"), "aliases": ["latest"]}]
    assert f"{site.name}/index.html" in (site.parent / "index.html").read_text()


def test_reference_pages_have_what_the_code_has(site: Path) -> None:
    settings = text_of(site / "reference" / "settings.html")
    assert "AfterValidator" not in settings, "a type, and not what looks at the value"
    assert [name for name in Settings.model_fields if f"TIDEGATE_{name.upper()}" not in settings] == []
    commands = text_of(site / "reference" / "commands.html")
    verbs = [f"tidegate {resource.name} {verb.name}" for resource in RESOURCES for verb in resource.verbs]
    assert [verb for verb in verbs if verb not in commands] == []
    assert "PUT /v1/plans/{plan}/limits/{limit}" in text_of(site / "reference" / "admin-api.html")
    assert "POST /v1/check/batch" in text_of(site / "reference" / "decision-api.html")
    charts = [text_of(page) for page in sorted((site / "reference").glob("chart-*.html"))]
    assert len(charts) == 3
    assert all("values" in chart.lower() for chart in charts)


def test_metrics_in_the_code_are_those_of_the_page_for_operators() -> None:
    """The page is held against a running stack elsewhere; here against names that show only once something happened."""
    described = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE))
    assert {metric.name for metric in metrics_in_code()} == {
        name for name in described if not name.startswith("process_")
    }
