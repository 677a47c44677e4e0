"""What the documentation shows: the blocks of a page, and which of its commands cannot run in a test."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)

CLUSTER = "needs a Kubernetes cluster; tests/charts renders the values and runs what the charts start"
OWN = "needs a Postgres and a store that run already; tests/system starts the same processes"
NOT_HERE: Mapping[tuple[str, str], str] = {
    ("docs/install-kubernetes.md", "alias tidegate='docker"): "needs Docker and the image",
    ("docs/install-kubernetes.md", "docker build"): "needs Docker and a registry",
    ("docs/install-kubernetes.md", "kubectl create namespace tidegate\n"): CLUSTER,
    ("docs/install-kubernetes.md", "kubectl -n tidegate create secret tls"): CLUSTER,
    ("docs/install-kubernetes.md", "kubectl create namespace tidegate --dry-run"): CLUSTER,
    ("docs/install-kubernetes.md", "helm upgrade --install us-east"): CLUSTER,
    ("docs/install-kubernetes.md", "curl $API/v1/nodes"): CLUSTER,
    ("docs/install-kubernetes.md", "helm uninstall"): CLUSTER,
    (
        "docs/install-pip.md",
        "python3 -m venv",
    ): "nothing is published yet; tests/release installs the wheel and runs it",
    ("docs/install-pip.md", "export TIDEGATE_DATABASE_URL"): OWN,
    ("docs/install-pip.md", "regions="): OWN,
    ("docs/install-pip.md", "export TIDEGATE_REGION"): OWN,
    ("docs/stores.md", "cd tests && PATH=FOLDER"): "runs tests for minutes, with another store",
    ("helm/control-plane/README.md", "kubectl create namespace"): CLUSTER,
    ("helm/data-plane/README.md", "kubectl -n tidegate"): CLUSTER,
    ("helm/evaluation/README.md", "helm install"): CLUSTER,
}
"""Page and beginning of a block, and why no test runs it."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``sh`` are commands, and ``text`` after them is what they print."""

    page: str
    language: str
    text: str

    @property
    def why_not_here(self) -> str | None:
        """Why no test runs these commands."""
        return next((why for (page, head), why in NOT_HERE.items() if self._begins(page, head)), None)

    def _begins(self, page: str, head: str) -> bool:
        return page == self.page and self.text.startswith(head)


def pages() -> list[str]:
    """Every page that somebody who uses or operates Tidegate reads, by its path in the repository."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    found += [*(ROOT / "clients").glob("*/README.md"), *(ROOT / "helm").glob("*/README.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The blocks of a page, or those in one language."""
    found = _FENCED.findall((ROOT / page).read_text("utf-8"))
    return [Block(page, of, textwrap.dedent(text)) for _, of, text in found if language in (None, of)]
