"""What lies in `dist/`, and what is written about it."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import helm_python
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.charts.rendering import CASES
from tests.release.environments import ROOT
from tools.release.archives import members
from tools.release.checksums import sha256
from tools.release.making import make
from tools.release.sources import exported

CHARTS = ("control-plane", "data-plane", "evaluation")
PYTHON = ("-py3-none-any.whl", ".tar.gz")
RELEASE = {"name": "edge", "namespace": "tidegate", "is_install": True}


def test_everything_is_there_and_its_checksums_hold(dist: Path, number: str) -> None:
    python = [f"{name}-{number}{ending}" for name in ("tidegate", "tidegate_client") for ending in PYTHON]
    artefacts = {*python, *(f"tidegate-{name}-{number}.tgz" for name in ("express", *CHARTS))}
    about = {f"tidegate-{number}.cdx.json", f"tidegate-{number}.provenance.json", "RELEASE_NOTES.md"}
    assert {path.name for path in dist.iterdir()} == artefacts | about | {"SHA256SUMS"}
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=dist, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(artefacts | about)


def test_the_wheel_holds_three_packages_with_scripts_and_migrations_inside(dist: Path, number: str) -> None:
    paths = [one.path.partition("/")[2] for one in members(dist / f"tidegate-{number}-py3-none-any.whl")]
    info = f"tidegate-{number}.dist-info"
    assert {path.split("/")[0] for path in paths} == {"control_plane", "data_plane", "tidegate", info}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    ours = {path for path in tracked if path.split("/")[0] in {"control_plane", "data_plane", "tidegate"}}
    bundled = {f"tidegate/{path}" for path in tracked if path.split("/")[0] in {"lua", "migrations"}}
    present = {
        path for path in ours | bundled if (ROOT / path.removeprefix("tidegate/")).exists() or (ROOT / path).exists()
    }
    assert {path for path in paths if not path.startswith(info)} == present
    licences = [path for path in paths if path == f"{info}/licenses/LICENSE"]
    assert len(licences) == 1


@pytest.mark.parametrize("name", ["tidegate", "tidegate_client"])
def test_no_wheel_asks_for_what_only_a_clone_needs(dist: Path, number: str, name: str) -> None:
    wheel = {one.path.partition("/")[2]: one.content for one in members(dist / f"{name}-{number}-py3-none-any.whl")}
    metadata = wheel[f"{name}-{number}.dist-info/METADATA"].decode()
    assert set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.MULTILINE)) <= {"local", "flask"}
    assert "pytest" not in re.findall(r"^Requires-Dist: ([\w.-]+)", metadata, re.MULTILINE)


def test_the_sdist_holds_what_its_wheel_is_built_of(dist: Path, number: str) -> None:
    top = {one.path.split("/")[2] for one in members(dist / f"tidegate-{number}.tar.gz")}
    folders = {"control_plane", "data_plane", "tidegate", "lua", "migrations"}
    assert top == folders | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO", ".gitignore"}


def test_the_bill_of_materials_is_sound_and_lists_every_pin_and_every_artefact(dist: Path, number: str) -> None:
    text = (dist / f"tidegate-{number}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    pins = (ROOT / "requirements" / "runtime.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", pins, re.MULTILINE))
    listed = {(one["name"], one["version"]) for one in bill["components"] if one["type"] == "library"}
    assert len(pinned) > 30
    assert pinned <= listed
    hashes = {one["name"]: one["hashes"][0]["content"] for one in bill["components"] if one["type"] == "file"}
    assert hashes == {path.name: sha256(path) for path in dist.iterdir() if path.suffix in {".whl", ".tgz", ".gz"}}
    asked = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    wheel = {ref.split("/")[1].split("@")[0] for ref in asked[f"tidegate-{number}-py3-none-any.whl"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(wheel) == len(project["dependencies"]) + len(project["optional-dependencies"]["local"])
    assert any("licenses" in one for one in bill["components"] if one["type"] == "library")


def test_the_provenance_names_the_commit_and_every_artefact_and_claims_no_signature(dist: Path, number: str) -> None:
    statement = json.loads((dist / f"tidegate-{number}.provenance.json").read_text())
    named = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    assert named == {path.name: sha256(path) for path in dist.iterdir() if path.suffix in {".whl", ".tgz", ".gz"}}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    source = statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert source == {"name": "source", "digest": {"gitCommit": head.strip()}}
    assert "signatures" not in statement


@pytest.mark.parametrize("case", sorted(CASES))
def test_charts_render_from_their_archives(dist: Path, number: str, case: str) -> None:
    folder, values = CASES[case]
    with helm_python.Chart.load_archive((dist / f"tidegate-{folder.name}-{number}.tgz").read_bytes()) as chart:
        chart.validate_schema(values)
        packed = chart.render(values, **RELEASE)
    with helm_python.Chart.load(folder) as chart:
        unpacked, again = chart.render(values, **RELEASE), chart.render(values, **RELEASE)
    generated = {path for path, text in unpacked.items() if text != again[path]}  # it holds a password that it makes
    assert generated <= {"tidegate-data-plane/templates/store.yaml"}
    assert packed.keys() == unpacked.keys()
    assert [path for path, text in packed.items() if text != unpacked[path]] == sorted(generated)


def test_the_evaluation_chart_brings_its_charts_along(dist: Path, number: str) -> None:
    with helm_python.Chart.load_archive((dist / f"tidegate-evaluation-{number}.tgz").read_bytes()) as chart:
        files = chart.render({}, **RELEASE)
    kinds = [line for text in files.values() for line in text.splitlines() if line.startswith("kind: Deployment")]
    assert len(kinds) == 5  # the control plane, and nodes and agents of two regions


def test_charts_are_signed_where_a_key_is_named(tmp_path: Path) -> None:
    if shutil.which("gpg") is None:
        pytest.skip("needs gpg (Debian package gnupg)")
    secret, public = tmp_path / "secret.gpg", tmp_path / "public.gpg"
    with TemporaryDirectory(prefix="tg-gpg-", dir="/tmp") as home:  # its agent's socket needs a short path
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        subprocess.run([*gpg, "--quick-generate-key", "release@tidegate.example", "rsa2048", "sign"], check=True)
        secret.write_bytes(subprocess.run([*gpg, "--export-secret-keys"], check=True, capture_output=True).stdout)
        public.write_bytes(subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=False)

    out = tmp_path / "dist"
    made = make(exported(ROOT, tmp_path / "sources"), out, _Step, ("release@tidegate.example", secret))
    charts = [path for path in made if path.name.startswith(tuple(f"tidegate-{name}-" for name in CHARTS))]
    assert len(charts) == len(CHARTS)
    for chart in charts:
        seen = helm_python.verify(chart, public)
        assert seen["file_hash"].removeprefix("sha256:") == sha256(chart)
    charts[0].write_bytes(charts[1].read_bytes())
    with pytest.raises(helm_python.HelmChartInvalidError):
        helm_python.verify(charts[0], public)


class _Step:
    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def test_every_package_has_the_licence_of_the_project() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert [(ROOT / "clients" / name / "LICENSE").read_text() for name in ("python", "express")] == [text, text]
