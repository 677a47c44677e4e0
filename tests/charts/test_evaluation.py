"""The chart to try Tidegate with: by one command, nothing set, and what it makes fits together."""

import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from helm.readme.__main__ import page
from tests.charts.rendering import CHARTS, CONTROL_PLANE, DATA_PLANE, manifest, render, render_checked

ROLES = {"Deployment", "StatefulSet", "Job"}
BUDGET_CPU_M, BUDGET_MIB = 500, 1024


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its dependencies beside it, as `helm install --dependency-update` makes it."""
    charts: Path = tmp_path_factory.mktemp("helm")
    for source in (CHARTS / "evaluation", CONTROL_PLANE, DATA_PLANE):
        shutil.copytree(source, charts / source.name)
    helm_python.dependency_update(charts / "evaluation")
    return charts / "evaluation"


@pytest.fixture(scope="module")
def manifests(chart: Path) -> list[dict[str, Any]]:
    return render(chart, {}, "tidegate")


def test_nothing_must_be_given(chart, manifests):
    render_checked(chart, {})
    report = helm_python.lint(chart, {}, strict=True)
    assert (report["errors"], report["messages"]) == ([], [])
    for one in manifests:
        kubernetes_validate.validate(one, "1.35", strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(names) == len(set(names))


def test_the_keys_that_it_makes_belong_together(manifests):
    made = {
        name: b64decode(value).decode()
        for name, value in manifest(manifests, "Secret", "tidegate-evaluation")["data"].items()
    }
    public = b64decode(manifest(manifests, "Secret", "tidegate-evaluation-public")["data"]["public-key"]).decode()
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(made["signing-key"]))
    assert key.public_key().public_bytes_raw().hex() == public
    assert made["database-password"] in made["database-url"]
    assert len(made["admin-token"]) >= 32


def test_every_secret_that_a_pod_reads_is_there(manifests):
    there = {one["metadata"]["name"] for one in manifests if one["kind"] == "Secret"}
    read = _named(manifests, {"secretKeyRef": "name", "secret": "secretName"})
    assert there == read | {"tidegate-demo-key"}
    (role,) = [one for one in manifests if one["kind"] == "Role"]
    # the job may fill those that are made empty, and read nothing else
    empty = {one["metadata"]["name"] for one in manifests if one["kind"] == "Secret" and "data" not in one}
    assert set(role["rules"][0]["resourceNames"]) == empty


def _named(place: Any, keys: dict[str, str]) -> set[str]:
    if isinstance(place, list):
        return set().union(*(_named(part, keys) for part in place))
    if not isinstance(place, dict):
        return set()
    own = {place[key][name] for key, name in keys.items() if isinstance(place.get(key), dict) and name in place[key]}
    return own.union(*(_named(part, keys) for part in place.values()))


def test_services_find_their_own_pods(manifests):
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in manifests
        if one["kind"] in ROLES
    }
    for one in manifests:
        if one["kind"] == "Service":
            selected = {name for name, labels in pods.items() if one["spec"]["selector"].items() <= labels.items()}
            assert selected == {one["metadata"]["name"]}


def test_it_is_small(manifests):
    cpu_m = mib = 0
    for one in manifests:
        if one["kind"] not in ROLES:
            continue
        for container in one["spec"]["template"]["spec"]["containers"]:
            asked = container["resources"]["requests"]
            cpu_m += int(asked["cpu"].removesuffix("m"))
            mib += int(asked["memory"].removesuffix("Mi"))
            assert container["resources"]["limits"]["memory"]
    assert cpu_m <= BUDGET_CPU_M
    assert mib <= BUDGET_MIB


def test_one_value_names_the_image_of_every_process(chart):
    values = {
        "global": {"image": {"repository": "registry.example/tidegate", "tag": "9"}, "imageRegistry": "mirror.example"}
    }
    images = {
        container["image"]
        for one in render(chart, values)
        if one["kind"] in ROLES
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert images == {
        "mirror.example/registry.example/tidegate:9", "mirror.example/postgres:16-alpine",
        "mirror.example/valkey/valkey:8.1.4-alpine",
    }  # fmt: skip


def test_the_readme_says_what_the_values_are():
    assert (CHARTS / "evaluation" / "README.md").read_text() == page(CHARTS / "evaluation")
