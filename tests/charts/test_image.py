"""The container image's definition and the compose project, as far as they can be tried without a container engine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.testing
from ruamel.yaml import YAML

from control_plane.settings import Settings as ControlPlaneSettings
from data_plane.settings import Settings as NodeSettings
from tidegate.cli import app
from tidegate.contract.credentials import credential_kind

ROOT = Path(__file__).parents[2]
CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text()
COMPOSE = YAML(typ="safe").load((ROOT / "deploy" / "compose.yaml").read_text())


def copied() -> set[str]:
    """What the Containerfile takes from the project."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def test_the_image_is_built_from_what_is_there_and_holds_every_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert copied() >= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    for source in copied():
        assert (ROOT / source).exists(), source
    ignored = (ROOT / "deploy" / "Containerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied()


def test_the_image_installs_hashed_wheels_only_and_runs_as_nobody():
    installs = re.findall(r"bin/pip install ([^\\\n]*)", CONTAINERFILE)
    assert installs
    for install in installs:
        assert "--require-hashes" in install or ("--no-index" in install and "--no-deps" in install)
    stages = re.split(r"^FROM ", CONTAINERFILE, flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    assert re.search(r"^USER 10001:10001$", stages[-1], re.MULTILINE)
    assert "pip install" not in stages[-1]


def test_no_installer_is_left_in_the_image():
    build, image = re.split(r"^FROM ", CONTAINERFILE, flags=re.MULTILINE)[1:]
    # of the environment that is copied, and of the base that it is copied onto
    assert re.search(r"/opt/tidegate/bin/pip uninstall [^\n]*\bsetuptools pip$", build, re.MULTILINE)
    assert re.search(r"/usr/local/bin/python3 -m pip uninstall [^\n]*\bsetuptools wheel pip", image)
    assert image.index("uninstall") < image.index("USER")


def test_the_projects_wheel_is_the_same_whenever_and_wherever_it_is_built(tmp_path):
    epoch = re.search(r"SOURCE_DATE_EPOCH=(\d+)", CONTAINERFILE).group(1)
    built = []
    for source in copied():
        place, copy = ROOT / source, tmp_path / "one" / source
        copy.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.copytree(place, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, copy)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for folder, time_s in (("one", 1_600_000_000), ("two", 1_700_000_001)):
        sources = tmp_path / folder
        for path in sources.rglob("*"):
            os.utime(path, (time_s, time_s))
        env = os.environ | {"SOURCE_DATE_EPOCH": epoch}
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / f"{folder}-wheel"]
        subprocess.run(command, check=True, cwd=sources, env=env, capture_output=True)
        (wheel,) = (tmp_path / f"{folder}-wheel").iterdir()
        built.append((wheel.name, wheel.read_bytes()))
    assert built[0] == built[1]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", text, re.MULTILINE))


def test_the_image_has_the_versions_that_tests_ran_with():
    image, tested = pins("image.txt"), pins("dev.txt")
    assert pins("runtime.txt").items() <= image.items()
    assert image.items() <= tested.items()
    assert pins("build.txt").items() <= tested.items()


def secrets_made(folder: Path) -> dict[str, dict[str, str]]:
    """What the first service of the compose project writes, by service and file."""
    script = ROOT / "deploy" / "make_secrets.py"
    subprocess.run([sys.executable, script, folder], check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    return {place.name: {file.name: file.read_text() for file in place.iterdir()} for place in folder.iterdir()}


def exported(env: str) -> dict[str, str]:
    """The variables that a shell takes from the file."""
    found = dict(re.findall(r"^export (\w+)=([\w:+/@.-]+)$", env, re.MULTILINE))
    assert len(found) == env.count("\n")
    return found


def test_the_compose_project_makes_its_secrets_once(tmp_path):
    made = secrets_made(tmp_path)
    assert secrets_made(tmp_path) == made
    assert credential_kind(made["control-plane"]["admin-token"].strip()) == "admin"
    node = exported(made["node"]["env"])
    assert credential_kind(node["TIDEGATE_REGION_CREDENTIAL"]) == "region"
    assert re.fullmatch("[0-9a-f]{64}", node["TIDEGATE_CONTROL_PLANE_PUBLIC_KEY"])
    assert made["postgres"]["password"] in exported(made["migrate"]["env"])["TIDEGATE_DATABASE_URL"]


def test_a_compose_project_from_before_agents_keeps_its_secrets(tmp_path):
    made = secrets_made(tmp_path)
    (tmp_path / "agent" / "complete").rename(tmp_path / "node" / "complete")
    (tmp_path / "agent" / "env").unlink()
    (tmp_path / "agent").rmdir()
    made["node"]["complete"] = ""
    assert secrets_made(tmp_path) == made


def test_every_service_of_the_compose_project_sees_its_own_secrets_only(tmp_path):
    made = secrets_made(tmp_path)
    services = COMPOSE["services"]
    mounts = {
        name: [volume.split(":") for volume in service["volumes"] if volume.split(":")[0].endswith("-secrets")]
        for name, service in services.items()
    }
    assert {place: f"/secrets/{place}" for place in made} == {
        volume.removesuffix("-secrets"): path for volume, path in mounts.pop("secrets")
    }
    assert mounts.pop("node") == [["node-secrets", "/secrets", "ro"]]
    assert mounts == {name: [[f"{name}-secrets", "/secrets", "ro"]] for name in mounts}
    # what the stores hold besides: nothing that opens anything else
    assert set(made["postgres"]) == {"password"}
    assert set(made["valkey"]) == {"valkey.conf"}
    signing = made["control-plane"]["signing-key"].strip()
    told = {name: "".join(files.values()) for name, files in made.items() if name != "control-plane"}
    assert not [name for name, text in told.items() if signing in text]
    admin = made["control-plane"]["admin-token"].strip()
    assert [name for name, text in told.items() if admin in text] == ["region"]


def test_images_of_others_may_be_named_by_digest():
    assert COMPOSE["services"]["postgres"]["image"].startswith("${POSTGRES_IMAGE:-")
    assert COMPOSE["services"]["valkey"]["image"].startswith("${VALKEY_IMAGE:-")
    assert COMPOSE["x-tidegate"]["build"]["args"]["PYTHON"].startswith("${PYTHON_IMAGE:-")


@pytest.mark.parametrize(
    ("service", "settings_class"), [("control-plane", ControlPlaneSettings), ("node", NodeSettings)]
)
def test_what_a_service_of_the_compose_project_is_told_are_settings_that_work(
    tmp_path, monkeypatch, service, settings_class
):
    made = secrets_made(tmp_path)
    described = COMPOSE["services"][service]
    known = {f"TIDEGATE_{name.upper()}" for name in settings_class.model_fields}
    assert described["environment"].keys() <= known
    secrets = exported(made[service]["env"])
    assert secrets.keys() <= {
        f"TIDEGATE_{n.upper()}" for s in (ControlPlaneSettings, NodeSettings) for n in s.model_fields
    }
    for name, value in (secrets | described["environment"]).items():
        monkeypatch.setenv(name, str(value).replace("/secrets", str(tmp_path / service)))
    settings = settings_class()
    published, inside = described["ports"][0].rsplit(":", 2)[1:]
    assert int(published) == int(inside) == settings.port
    assert f":{settings.port}/readyz" in described["healthcheck"]["test"][-1]
    program = re.fullmatch(r"\. /secrets/env && exec tidegate ([a-z-]+)", described["entrypoint"][-1]).group(1)
    assert typer.testing.CliRunner().invoke(app, [program, "--help"]).exit_code == 0
    if settings_class is ControlPlaneSettings:
        public = settings.signing_key().public_key().public_bytes_raw().hex()
        assert public == exported(made["node"]["env"])["TIDEGATE_CONTROL_PLANE_PUBLIC_KEY"]
        assert credential_kind(settings.first_admin_token()) == "admin"


def test_every_service_of_the_compose_project_that_is_ours_is_locked_down_and_waits_for_what_it_needs():
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for published in service.get("ports", ()):
            assert published.startswith("127.0.0.1:")
        if service["image"].startswith("tidegate"):
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
    assert set(services["node"]["depends_on"]) == {"region", "valkey"}
