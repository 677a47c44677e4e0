"""What a release meets on a cluster: names, upgrades and rollbacks, mirrors, platforms with rules of their own."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest

from helm.readme.__main__ import page
from tests.charts.rendering import (
    CHARTS,
    CONTROL_PLANE,
    DATA_PLANE,
    deployment,
    manifest,
    render,
    render_checked,
    with_required,
)

BOTH = pytest.mark.parametrize("chart", [DATA_PLANE, CONTROL_PLANE], ids=["data-plane", "control-plane"])
HELM_TIMEOUT_S = 300  # what --timeout is when nobody says
URL = "postgresql://tidegate:one@postgres.example/tidegate"


def database(url: str) -> dict[str, Any]:
    return with_required(CONTROL_PLANE, {"database": {"existingSecret": "", "url": url}})


def pod_of(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    template: dict[str, Any] = deployment(manifests)["spec"]["template"]
    return template


def all_pods(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    owners = [one for one in manifests if one["kind"] in {"Deployment", "StatefulSet", "Job"}]
    return [one["spec"]["template"]["spec"] for one in owners] + [
        one["spec"] for one in manifests if one["kind"] == "Pod"
    ]


@BOTH
@pytest.mark.parametrize("release", ["y", "no", "null", "123", "1e3", "0x1f"])
def test_a_release_may_be_called_what_yaml_takes_for_something_else(chart, release):
    for one in render(chart, with_required(chart, {}), release):
        if one["kind"] in {"Deployment", "StatefulSet", "Service", "NetworkPolicy", "Job", "Pod", "Secret"}:
            kubernetes_validate.validate(one, "1.35", strict=True)
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == release
        if one["kind"] == "Service":
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", one["metadata"]["name"])


@BOTH
def test_names_in_the_values_may_be_numbers(chart):
    """A secret called 1e3, a class called 100: the API server takes words only."""
    values: dict[str, Any] = {
        "ingress": {"enabled": True, "host": "edge.example", "className": "100", "tlsSecret": "1e3"},
        "topologySpread": {"keys": ["12"]},
    }
    if chart == DATA_PLANE:
        values["store"] = {"bundled": {"persistence": {"storageClass": "100"}}}
    else:
        values["database"] = {"key": "123"}
    for one in render(chart, with_required(chart, values)):
        kubernetes_validate.validate(one, "1.35", strict=True)


@BOTH
def test_labels_are_short_and_plain_whatever_the_chart_and_the_values_are_called(chart, tmp_path):
    packaged = tmp_path / "packaged"
    shutil.copytree(chart, packaged)
    about = (packaged / "Chart.yaml").read_text()
    version = "99.0.0+build.{}".format("7" * 60)
    about = re.sub(r"(?m)^version: .*$", f"version: {version}", about)
    (packaged / "Chart.yaml").write_text(re.sub(r"(?m)^appVersion: .*$", "appVersion: 99.0.0+build", about))
    values = with_required(chart, {"nameOverride": "n" * 63, "networkPolicy": {"from": [{"namespaceSelector": {}}]}})
    labels = list(_labels(render(packaged, values)))
    assert len(labels) > 50
    for label in labels:
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", label), label


def _labels(place: Any) -> Iterator[str]:
    """The values of all labels, and of those that selectors look for."""
    if isinstance(place, list):
        for part in place:
            yield from _labels(part)
    elif isinstance(place, dict):
        for name, part in place.items():
            if name in {"labels", "matchLabels"}:
                yield from part.values()
            else:
                yield from _labels(part)


@BOTH
def test_objects_are_called_as_the_values_say(chart):
    def names(**given: str) -> set[str]:
        return {deployment(render(chart, with_required(chart, given)))["metadata"]["name"]}

    assert names() == {"edge"}
    assert names(nameOverride="limits") == {"edge-limits"}
    assert names(fullnameOverride="limits") == names(nameOverride="x", fullnameOverride="limits") == {"limits"}
    pod = pod_of(render(chart, with_required(chart, {"nameOverride": "limits", "commonLabels": {"team": "edge"}})))
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "limits"
    assert pod["metadata"]["labels"]["team"] == "edge"


def test_two_regions_in_one_release_select_their_own_pods():
    """As the evaluation has them: one release, two names."""
    values = [with_required(DATA_PLANE, {"nameOverride": region}) for region in ("us-east", "eu-west")]
    selectors = [
        [one["spec"]["selector"] for one in render(DATA_PLANE, given) if one["kind"] == "Service"] for given in values
    ]
    assert all(one not in selectors[1] for one in selectors[0])


@BOTH
def test_no_service_of_the_namespace_sets_a_variable(chart):
    for spec in all_pods(render(chart, with_required(chart, {}))):
        assert spec["enableServiceLinks"] is False


@BOTH
def test_every_image_comes_from_the_mirror_and_may_be_a_digest(chart):
    digest = "sha256:" + "3" * 64
    values: dict[str, Any] = {
        "global": {"imageRegistry": "mirror.example", "imagePullSecrets": [{"name": "mirror"}]},
        "image": {"registry": "registry.example", "digest": digest},
    }
    if chart == DATA_PLANE:
        values["store"] = {"bundled": {"image": {"digest": digest}}}
    specs = all_pods(render(chart, with_required(chart, values)))
    assert len(specs) >= 3
    for spec in specs:
        assert spec["imagePullSecrets"] == [{"name": "mirror"}]
        for container in spec["containers"]:
            assert re.fullmatch(r"mirror\.example/(tidegate|valkey/valkey)@" + digest, container["image"])
    del values["global"]
    image = pod_of(render(chart, with_required(chart, values)))["spec"]["containers"][0]["image"]
    assert image == f"registry.example/tidegate@{digest}"


def test_pods_follow_a_new_database_url():
    pods = [pod_of(render(CONTROL_PLANE, database(url))) for url in (URL, URL.replace("one", "two"))]
    checksums = [pod["metadata"]["annotations"]["checksum/secrets"] for pod in pods]
    assert checksums[0] != checksums[1]


@pytest.mark.parametrize("chart", [CONTROL_PLANE, DATA_PLANE])
def test_annotations_of_pods_come_beside_the_checksum_and_never_in_its_place(chart: Path):
    given = with_required(chart, {"podAnnotations": {"team": "edge", "checksum/secrets": "none"}})
    for manifests in (render(chart, with_required(chart, {})), render(chart, given)):
        ours = [one["spec"]["template"]["metadata"] for one in manifests if one["kind"] == "Deployment"]
        checksums = [pod["annotations"]["checksum/secrets"] for pod in ours]
        assert all(re.fullmatch(r"[0-9a-f]{64}", checksum) for checksum in checksums), checksums
    assert all(pod["annotations"]["team"] == "edge" for pod in ours)


def test_a_new_version_of_the_chart_leaves_the_bundled_store_running(tmp_path):
    def store(chart: Path) -> dict[str, Any]:
        return manifest(render(chart, with_required(DATA_PLANE, {"commonLabels": {"team": "edge"}})), "StatefulSet")

    newer = tmp_path / "data-plane"
    shutil.copytree(DATA_PLANE, newer)
    about = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*$", r"\1: 99.0.0", about))
    assert store(newer)["metadata"]["labels"]["app.kubernetes.io/version"] == "99.0.0"
    assert store(newer)["spec"] == store(DATA_PLANE)["spec"]
    assert store(newer)["spec"]["template"]["metadata"]["labels"]["team"] == "edge"


def test_the_notes_say_whether_other_regions_reach_agents():
    def notes(values: dict[str, Any]) -> str:
        files = helm_python.Chart.load(DATA_PLANE).render(with_required(DATA_PLANE, values), name="edge", namespace="n")
        (text,) = [text for path, text in files.items() if path.endswith("NOTES.txt")]
        return text

    assert "cannot reach its agents yet" in notes({})
    for reached in ({"ingress": {"enabled": True, "host": "h"}}, {"agent": {"service": {"type": "LoadBalancer"}}}):
        assert "cannot reach" not in notes(reached)


def test_a_rollback_brings_the_database_url_back():
    """Hooks of an upgrade do not run in a rollback: what pods read belongs to the release, the migration has a copy."""
    manifests = render(CONTROL_PLANE, database(URL))
    env = pod_of(manifests)["spec"]["containers"][0]["env"]
    read = next(one for one in env if one["name"] == "TIDEGATE_DATABASE_URL")["valueFrom"]["secretKeyRef"]["name"]
    assert "annotations" not in manifest(manifests, "Secret", read)["metadata"]
    job = manifest(manifests, "Job")["spec"]["template"]["spec"]["containers"][0]
    copy = manifest(manifests, "Secret", job["env"][0]["valueFrom"]["secretKeyRef"]["name"])
    assert copy["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert copy["stringData"] == {"url": URL}


def test_a_migration_that_helm_gave_up_on_does_not_begin():
    job = manifest(render(CONTROL_PLANE, with_required(CONTROL_PLANE, {})), "Job")["spec"]
    assert job["activeDeadlineSeconds"] < HELM_TIMEOUT_S


def test_where_the_database_comes_with_the_release_each_pod_migrates():
    values = with_required(CONTROL_PLANE, {"migration": {"as": "initContainer"}})
    manifests = render(CONTROL_PLANE, values)
    assert "Job" not in {one["kind"] for one in manifests}
    spec = pod_of(manifests)["spec"]
    assert spec["initContainers"][0]["command"][:2] == ["tidegate", "migrate"]
    assert spec["initContainers"][0]["env"][0] in spec["containers"][0]["env"]


def test_the_certificates_of_the_database_are_where_libpq_looks():
    values = {"database": {"tlsSecret": "pg", "clientCertificate": True}}
    manifests = render(CONTROL_PLANE, with_required(CONTROL_PLANE, values))
    for spec in (pod_of(manifests)["spec"], manifest(manifests, "Job")["spec"]["template"]["spec"]):
        container = spec["containers"][0]
        files = {one["name"]: one["value"] for one in container["env"] if one["name"].startswith("PGSSL")}
        assert {name: path.rsplit("/", 1)[1] for name, path in files.items()} == {
            "PGSSLROOTCERT": "ca.crt", "PGSSLCERT": "tls.crt", "PGSSLKEY": "tls.key",
        }  # fmt: skip
        (place,) = {path.rsplit("/", 1)[0] for path in files.values()}
        mounted = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert {one["name"]: one.get("secret", {}).get("secretName") for one in spec["volumes"]}[mounted[place]] == "pg"


@BOTH
def test_a_machine_can_be_drained_of_pods_that_are_not_ready(chart):
    """With the default policy a budget with too few ready pods keeps those that are not, until they are."""
    manifests = render(chart, with_required(chart, {}))
    budgets = [one["spec"] for one in manifests if one["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == len([one for one in manifests if one["kind"] == "Deployment"])
    for budget in budgets:
        assert (budget["maxUnavailable"], budget.get("unhealthyPodEvictionPolicy")) == (1, "AlwaysAllow")


def test_the_store_is_as_important_as_who_decides_by_it():
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, {"priorityClassName": "edge-critical"}))
    owners = [one for one in manifests if one["kind"] in {"Deployment", "StatefulSet"}]
    assert len(owners) == 3
    assert {one["spec"]["template"]["spec"].get("priorityClassName") for one in owners} == {"edge-critical"}


@BOTH
def test_the_platform_may_choose_who_containers_are(chart):
    values = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    spec = pod_of(render(chart, with_required(chart, values)))["spec"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@BOTH
def test_a_probe_may_ask_in_its_own_way(chart):
    values = {"livenessProbe": {"exec": {"command": ["true"]}}, "readinessProbe": {"periodSeconds": 9}}
    container = pod_of(render(chart, with_required(chart, values)))["spec"]["containers"][0]
    assert container["livenessProbe"]["exec"] == {"command": ["true"]}
    assert "httpGet" not in container["livenessProbe"]
    assert container["readinessProbe"]["periodSeconds"] == 9
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@BOTH
def test_a_runbook_url_is_one_or_there_is_none(chart):
    def annotations(runbooks: str) -> list[dict[str, str]]:
        values = with_required(chart, {"prometheusRule": {"enabled": True, "runbooks": runbooks}})
        groups = manifest(render(chart, values), "PrometheusRule")["spec"]["groups"]
        return [rule["annotations"] for group in groups for rule in group["rules"] if "alert" in rule]

    here = annotations("")
    for one in here:
        assert "runbook_url" not in one
        assert (CHARTS.parent / one["runbook"]).exists()
    for one in annotations("https://wiki.example/runbooks/"):
        assert re.fullmatch(r"https://wiki\.example/runbooks/[a-z-]+\.md", one["runbook_url"])
    with pytest.raises(helm_python.HelmError, match="runbooks"):
        render_checked(chart, with_required(chart, {"prometheusRule": {"runbooks": "docs/runbooks"}}))


@pytest.mark.parametrize(
    ("chart", "missing"),
    [
        (DATA_PLANE, ["region:", "controlPlane.url:", "controlPlane.publicKey:", "credential.existingSecret:"]),
        (CONTROL_PLANE, ["database.existingSecret:", "signingKey.existingSecret:"]),
    ],
    ids=["data-plane", "control-plane"],
)
def test_everything_that_is_missing_is_named_at_once(chart, missing):
    with pytest.raises(helm_python.HelmError) as refused:
        render_checked(chart, {})
    assert [name for name in missing if name not in str(refused.value)] == []
    assert "helm/evaluation" in str(refused.value)


@BOTH
def test_helm_lint_has_nothing_to_say_of_the_defaults(chart):
    report = helm_python.lint(chart, {}, strict=True)
    assert (report["errors"], report["messages"]) == ([], [])


@BOTH
def test_the_readme_says_what_the_values_are(chart):
    """Written by `python -m helm.readme`."""
    assert (chart / "README.md").read_text() == page(chart)


def test_both_charts_have_the_same_parts_in_common():
    shared = [(chart / "templates" / "_shared.tpl").read_bytes() for chart in (DATA_PLANE, CONTROL_PLANE)]
    assert shared[0] == shared[1]
