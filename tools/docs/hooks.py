"""What mkdocs calls when it builds the site: pages made from code, pages that lie beside their code, links to both."""

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.docs import reference

ROOT: Final = Path(__file__).parents[2]
BESIDE: Final = {
    "clients/python/README.md": "python.md",
    "clients/express/README.md": "express.md",
    "helm/evaluation/README.md": "reference/chart-evaluation.md",
    "helm/control-plane/README.md": "reference/chart-control-plane.md",
    "helm/data-plane/README.md": "reference/chart-data-plane.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
"""Pages of the repository and where they are on the site."""
_AT = {place: source for source, place in BESIDE.items() if place != "index.md"}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let a folder stand in the navigation for all of its pages: ``decisions/*``."""
    config.nav = _with_folders(config.nav)
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what does not lie in ``docs/``."""
    for place, source in _AT.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text("utf-8")))
    for place, made in reference.PAGES.items():
        files.append(File.generated(config, place, content=made()))
    files.append(File.generated(config, "decisions/README.md", content=_list_of_decisions()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where their target is on the site; of a file that is not there only the words stay."""
    del config
    place = page.file.src_uri
    source = _AT.get(place, f"docs/{place}")

    def on_site(link: re.Match[str]) -> str:
        mark, words, target = link.groups()
        path, hash, anchor = target.partition("#")
        if not path or "://" in path or path.startswith(("/", "mailto:")):
            return link[0]
        found = _place_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)), files)
        if found is None:
            return words
        return f"{mark}[{words}]({posixpath.relpath(found, posixpath.dirname(place) or '.')}{hash}{anchor})"

    return _LINK.sub(on_site, markdown)


def _place_of(repository_path: str, files: Files) -> str | None:
    """Where a file or folder of the repository is on the site."""
    place = BESIDE.get(repository_path) or BESIDE.get(f"{repository_path}/README.md")
    if place is not None:
        return place
    inside = repository_path.removeprefix("docs/")
    if inside == repository_path:
        return None
    return next((one for one in (inside, f"{inside}/README.md") if files.get_file_from_path(one)), None)


def _with_folders(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_with_folders(one) for one in nav]
    if isinstance(nav, dict):
        return {title: _with_folders(one) for title, one in nav.items()}
    if isinstance(nav, str) and nav.endswith("/*"):
        folder = nav.removesuffix("*")
        pages = sorted(path.name for path in (ROOT / "docs" / folder).glob("*.md") if path.name != "README.md")
        return [f"{folder}README.md", *(folder + name for name in pages)]
    return nav


def _list_of_decisions() -> str:
    lines = ["# Decisions", "", "Why it is built as it is, with the figure that settled it.", ""]
    for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join([*lines, ""])
