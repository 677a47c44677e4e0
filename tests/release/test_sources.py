"""The version in one place, the notes of a version, and what of a clone is built."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.release.environments import ROOT
from tools.release.notes import release_notes
from tools.release.sources import SourceError, exported
from tools.release.versions import PLACES, differences, set_version, version

CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n- new\n\n## 1.1.0 - 2026-12-01\n\n- one\n\n## [1.0.0] - 2026-11-01\n\n- zero\n"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files that state a version."""
    for place in PLACES:
        (tmp_path / place.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place.path, tmp_path / place.path)
    return tmp_path


def test_every_place_states_the_version() -> None:
    assert differences(ROOT) == []


def test_a_version_is_set_everywhere(tree: Path) -> None:
    changed = set_version(tree, "1.2.3-rc.1")
    assert set(changed) == {place.path for place in PLACES}
    assert version(tree) == "1.2.3-rc.1"
    assert differences(tree) == []
    left = [place.path for place in PLACES if version(ROOT) in place.pattern.findall((tree / place.path).read_text())]
    assert left == []
    assert "version: 1.2.3-rc.1, repository" in (tree / "helm/evaluation/Chart.yaml").read_text()


@pytest.mark.parametrize("path", sorted({place.path for place in PLACES} - {"pyproject.toml"}))
def test_a_place_that_differs_is_named(tree: Path, path: str) -> None:
    file = tree / path
    file.write_text(file.read_text().replace(version(tree), "9.9.9", 1))
    (said,) = differences(tree)[:1]
    assert said.startswith(f"{path} says ")
    assert "9.9.9" in said


@pytest.mark.parametrize("wanted", ["1.2", "v1.2.3", "1.2.3 ", "01.2.3", "1.2.3+x", "latest"])
def test_what_is_no_version_is_refused(tree: Path, wanted: str) -> None:
    with pytest.raises(ValueError, match="is no version"):
        set_version(tree, wanted)


@pytest.mark.parametrize(("number", "body"), [("1.1.0", "- one"), ("1.0.0", "- zero"), ("1.2.0", "- new")])
def test_the_notes_are_the_versions_own_section_or_what_is_unreleased(number: str, body: str) -> None:
    assert release_notes(CHANGELOG, number) == f"# Tidegate {number}\n\n{body}\n"


def test_a_version_that_nothing_is_said_of_has_no_notes() -> None:
    with pytest.raises(ValueError, match=r"no section for 2\.0\.0"):
        release_notes("# Changelog\n\n## Unreleased\n\n## 1.0.0\n\n- zero\n", "2.0.0")


def test_only_what_git_tracks_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    clone, out = tmp_path / "clone", tmp_path / "out"
    clone.mkdir()
    git = ["git", "-C", str(clone), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (clone / "a.py").write_text("1\n")
    subprocess.run([*git, "add", "a.py"], check=True)
    monkeypatch.setenv("GIT_COMMITTER_DATE", "@1700000000 +0000")
    subprocess.run([*git, "commit", "--quiet", "-m", "a"], check=True)
    (clone / ".env").write_text("SECRET=1\n")
    sources = exported(clone, out)
    assert [path.name for path in out.rglob("*")] == ["a.py"]
    assert (sources.changed, sources.epoch_s) == (True, 1_700_000_000)
    (clone / ".env").unlink()
    assert not exported(clone, tmp_path / "again").changed


def test_a_folder_without_a_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no git repository"):
        exported(tmp_path, tmp_path / "out")
