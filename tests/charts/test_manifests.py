"""What the charts make: valid for Kubernetes, safe to run, and bad values refused by name."""

import functools
import json
import re
from typing import Any

import helm_python
import kubernetes_validate
import pytest

from control_plane.settings import Settings as ControlPlaneSettings
from data_plane.settings import AgentSettings
from data_plane.settings import Settings as NodeSettings
from tests.charts.rendering import (
    CASES,
    CONTROL_PLANE,
    DATA_PLANE,
    FULL,
    REQUIRED,
    deployment,
    manifest,
    render,
    render_checked,
    with_required,
)

KUBERNETES = ("1.35", "1.36", "1.37")
CUSTOM = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}  # kinds of the Prometheus operator

BAD = [
    (DATA_PLANE, {"region": "US East"}, "region"),
    (DATA_PLANE, {"controlPlane": {"url": "control-plane:8000"}}, "controlPlane/url"),
    (DATA_PLANE, {"controlPlane": {"publicKey": "secret"}}, "controlPlane/publicKey"),
    (DATA_PLANE, {"replicas": 0}, "replicas"),
    (DATA_PLANE, {"replica": 3}, "replica"),
    (DATA_PLANE, {"node": {"dialect": "apache"}}, "node/dialect"),
    (DATA_PLANE, {"node": {"drainSeconds": "ten"}}, "node/drainSeconds"),
    (DATA_PLANE, {"store": {"external": {"url": "http://redis"}}}, "store/external/url"),
    (DATA_PLANE, {"store": {"external": {"sentinels": ["s1"]}}}, "store/external/sentinels"),
    (DATA_PLANE, {"resources": {"limits": {"memory": "lots"}}}, "resources/limits/memory"),
    (DATA_PLANE, {"image": {"digest": "sha256:short"}}, "image/digest"),
    (DATA_PLANE, {"ingress": {"paths": ["/metrics"]}}, "ingress.paths: /metrics"),
    (DATA_PLANE, {"ingress": {"paths": ["/v1/", "/"]}}, "ingress.paths: / exposes"),
    (CONTROL_PLANE, {"ingress": {"paths": ["/metrics/"]}}, "ingress.paths: /metrics/"),
    (CONTROL_PLANE, {"ingress": {"paths": ["v1"]}}, "ingress/paths"),
    (DATA_PLANE, {"rls": {"port": 8101}}, "rls/port"),
    (DATA_PLANE, {"rls": {"enabled": True, "port": 8102}}, "rls.port"),
    (DATA_PLANE, {"rls": {"enabled": True}, "service": {"port": 8181}}, "service.port"),
    (DATA_PLANE, {"node": {"healthPort": 8101}}, "node/healthPort"),
    (DATA_PLANE, {"node": {"healthPort": 8201}}, "node/healthPort"),
    (DATA_PLANE, {"node": {"tls": {"clientCAKey": "ca.crt"}}}, "node.tls"),
    (DATA_PLANE, {"agent": {"tls": {"clientCAKey": "ca.crt"}}}, "agent.tls"),
    (DATA_PLANE, {"peers": {"clientCertificate": True}}, "peers"),
    (
        DATA_PLANE,
        {"store": {"bundled": {"enabled": False}, "external": {"existingSecret": "store", "clientCertificate": True}}},
        "clientCertificate",
    ),
    (CONTROL_PLANE, {"database": {"clientCertificate": True}}, "database"),
    (DATA_PLANE, {"networkPolicy": {"egressPorts": ["https"]}}, "networkPolicy/egressPorts"),
    (DATA_PLANE, {"settings": {"TIDEGATE_PORT": "1"}}, "TIDEGATE_PORT"),
    (DATA_PLANE, {"podDisruptionBudget": {"maxUnavailable": "some"}}, "podDisruptionBudget/maxUnavailable"),
    (DATA_PLANE, {"credential": {"existingSecret": ""}}, "credential"),
    (DATA_PLANE, {"store": {"bundled": {"enabled": False}}}, "store.external"),
    (DATA_PLANE, {"store": {"external": {"existingSecret": "x"}}}, "not both"),
    (DATA_PLANE, {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}, "minReplicas"),
    (DATA_PLANE, {"ingress": {"enabled": True}}, "ingress.host"),
    (CONTROL_PLANE, {"signingKey": {"existingSecret": ""}}, "signingKey/existingSecret"),
    (CONTROL_PLANE, {"signingKey": {"existingSecret": "Not a name"}}, "signingKey/existingSecret"),
    (CONTROL_PLANE, {"networkPolicy": {"blockedCIDRs": ["metadata"]}}, "networkPolicy/blockedCIDRs"),
    (DATA_PLANE, {"fullnameOverride": "1st"}, "fullnameOverride"),
    (CONTROL_PLANE, {"database": {"existingSecret": "", "url": "mysql://db/x"}}, "database/url"),
    (CONTROL_PLANE, {"database": {"existingSecret": "", "url": "postgresql:///x?host=db&port=6432"}}, "database.url: "),
    (CONTROL_PLANE, {"database": {"existingSecret": "", "url": "postgresql:///x?host=db:6432"}}, "database.url: "),
    (CONTROL_PLANE, {"database": {"existingSecret": ""}}, "database"),
    (CONTROL_PLANE, {"service": {"port": 0}}, "service/port"),
    (CONTROL_PLANE, {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}, "minReplicas"),
    (CONTROL_PLANE, {"networkPolicy": {"egressPorts": [0]}}, "networkPolicy/egressPorts"),
    (CONTROL_PLANE, {"migration": {"waitSeconds": -1}}, "migration/waitSeconds"),
    (CONTROL_PLANE, {"logLevel": "loud"}, "logLevel"),
    (DATA_PLANE, {"settings": {"DRAIN_S": 60}}, "DRAIN_S"),
    (DATA_PLANE, {"settings": {"REDIS_DEADLINE": 40}}, "REDIS_DEADLINE"),
    (CONTROL_PLANE, {"settings": {"PORT": 80}}, "PORT"),
    (CONTROL_PLANE, {"settings": {"ADMIN_TOKEN": "in clear in the pod"}}, "ADMIN_TOKEN"),
    (DATA_PLANE, {"settings": {"REDIS_SENTINEL_PASSWORD": "in clear in the pod"}}, "REDIS_SENTINEL_PASSWORD"),
    (CONTROL_PLANE, {"serviceMonitor": {"interval": "often"}}, "serviceMonitor/interval"),
    (DATA_PLANE, {"commonLabels": {"app.kubernetes.io/name": "limits"}}, "commonLabels: app.kubernetes.io/name"),
    (CONTROL_PLANE, {"podLabels": {"app.kubernetes.io/instance": "a"}}, "podLabels: app.kubernetes.io/instance"),
]


@pytest.fixture(params=CASES)
def case(request) -> str:
    return request.param


@functools.cache
def rendered(case: str) -> list[dict[str, Any]]:
    chart, values = CASES[case]
    return render(chart, with_required(chart, values))


@pytest.fixture
def manifests(case) -> list[dict[str, Any]]:
    return rendered(case)


def test_charts_lint_without_a_warning(case):
    chart, values = CASES[case]
    report = helm_python.lint(chart, with_required(chart, values), strict=True)
    assert report["total_charts_linted"] == 1
    assert (report["errors"], report["messages"]) == ([], [])


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_is_valid_in_recent_kubernetes(manifests, version):
    own = [one for one in manifests if one["kind"] not in CUSTOM]
    assert own
    for one in own:
        kubernetes_validate.validate(one, version, strict=True)


def test_manifests_of_the_prometheus_operator_have_its_form(manifests):
    for one in manifests:
        if one["kind"] not in CUSTOM:
            continue
        assert one["apiVersion"] == "monitoring.coreos.com/v1"
        if one["kind"] == "PrometheusRule":
            assert set(one["spec"]) == {"groups"}
            assert all(rule["expr"] for group in one["spec"]["groups"] for rule in group["rules"])
        else:
            endpoints = one["spec"].get("podMetricsEndpoints") or one["spec"]["endpoints"]
            port = "health" if one["kind"] == "PodMonitor" else "http"
            assert [(endpoint["port"], endpoint["path"]) for endpoint in endpoints] == [(port, "/metrics")]
            selector = one["spec"]["selector"]
            assert selector["matchLabels"]
            if one["kind"] == "PodMonitor":  # nodes and agents
                assert len(selector["matchExpressions"][0]["values"]) == 2


def pods(manifests):
    owned = [one["spec"]["template"] for one in manifests if one["kind"] in {"Deployment", "StatefulSet", "Job"}]
    return owned + [one for one in manifests if one["kind"] == "Pod"]


def test_every_pod_runs_as_nobody_on_a_read_only_file_system_with_bounded_memory(manifests):
    assert pods(manifests)
    for pod in pods(manifests):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            held = container["securityContext"]
            assert held["readOnlyRootFilesystem"] is True
            assert held["allowPrivilegeEscalation"] is False
            assert held["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}


def test_no_secret_is_in_a_command_line_or_in_clear_in_an_environment(manifests):
    for pod in pods(manifests):
        for container in pod["spec"]["containers"]:
            told = " ".join(container["command"]) + " ".join(str(env.get("value", "")) for env in container["env"])
            assert "secret@" not in told
            assert "tgr_made-up" not in told


def test_selectors_find_their_pods_and_only_those(manifests):
    labels = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
              for one in manifests if one["kind"] in {"Deployment", "StatefulSet", "Job"}}  # fmt: skip

    def found(selector):
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    for one in manifests:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            assert found(spec["selector"]) == {one["metadata"]["name"]}
        elif one["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            assert found(spec["selector"]["matchLabels"]) == {one["metadata"]["name"]}
        elif one["kind"] == "NetworkPolicy":
            assert found(spec["podSelector"]["matchLabels"]) == {one["metadata"]["name"]}
        elif one["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in labels


def test_two_releases_in_a_namespace_share_no_object():
    values = with_required(DATA_PLANE, FULL[DATA_PLANE] | {"serviceAccount": {}})
    both = [
        {(one["kind"], one["metadata"]["name"]) for one in render(DATA_PLANE, values, release)}
        for release in ("us-east", "eu-west")
    ]
    assert both[0].isdisjoint(both[1])


@pytest.mark.parametrize("chart", REQUIRED, ids=["data-plane", "control-plane"])
def test_a_label_that_several_values_name_is_of_the_one_nearest_to_it(chart):
    names = ("podMonitor", "serviceMonitor", "prometheusRule", "dashboards")
    own = {name: {"enabled": True, "labels": {"team": name}} for name in names if name in FULL[chart]}
    common = {"team": "all", "app.kubernetes.io/part-of": "limits"}
    values = {"commonLabels": common, "podLabels": {"team": "pods"}}
    made: dict[str, set[str]] = {}
    for one in render(chart, with_required(chart, values | own)):
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "limits"
        made.setdefault(one["kind"], set()).add(labels["team"])
        if one["kind"] == "Deployment":
            assert one["spec"]["template"]["metadata"]["labels"]["team"] == "pods"
    assert made["Service"] == {"all"}
    assert {team for teams in made.values() for team in teams} == {"all", *own}


def test_a_release_of_any_name_can_run():
    for release in ("a" * 53, "us.east", "tidegate.nodes-of-us-east-in-the-second-cluster-of-ours"[:53]):
        for one in render(DATA_PLANE, with_required(DATA_PLANE, {}), release):
            name = one["metadata"]["name"]
            if one["kind"] == "StatefulSet":  # Kubernetes labels its pods with the name and a hash: 11 characters
                assert len(name) + 11 <= 63, name
            if one["kind"] == "Service":
                assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)


def test_settings_are_told_as_they_were_given():
    given = {"USAGE_STREAM_MAX_MB": 1_000_000, "TRACES_SHARE": 0.0001, "TRACES_FOLLOW_CALLER": True}
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, {"settings": given, "node": {"host": "::"}}))
    container = deployment(manifests)["spec"]["template"]["spec"]["containers"][0]
    env = {one["name"].removeprefix("TIDEGATE_"): one.get("value") for one in container["env"]}
    assert [env[name] for name in (*given, "HOST")] == ["1000000", "0.0001", "true", "::"]


def test_a_group_of_the_identity_provider_may_have_any_letters():
    group = "team $$ $(TIDEGATE_PORT) $x"
    oidc = {"issuer": "https://login.example", "audience": "tidegate", "grants": [{"group": group, "role": "admin"}]}
    pod = deployment(render(CONTROL_PLANE, with_required(CONTROL_PLANE, {"oidc": oidc})))["spec"]["template"]["spec"]
    env: dict[str, str] = {}
    for one in pod["containers"][0]["env"]:
        # as Kubernetes does it: $$ is $, and $(NAME) what was set before
        env[one["name"]] = re.sub(
            r"\$\$|\$\((\w+)\)", lambda found: env.get(found[1], found[0]) if found[1] else "$", one.get("value", "")
        )
    assert json.loads(env["TIDEGATE_OIDC_GRANTS"])[0]["group"] == group


def restarted(**values: Any) -> set[str]:
    """Whose pods follow when these values come to those that a chart cannot do without."""

    def checksums(given: dict[str, Any]) -> dict[str, str]:
        manifests = [one for one in render(DATA_PLANE, given) if one["kind"] == "Deployment"]
        pods = {one["metadata"]["name"]: one["spec"]["template"]["metadata"] for one in manifests}
        return {name: pod["annotations"]["checksum/secrets"] for name, pod in pods.items()}

    before, after = checksums(with_required(DATA_PLANE, {})), checksums(with_required(DATA_PLANE, values))
    return {name for name, checksum in after.items() if checksum != before[name]}


def test_pods_follow_what_they_read_at_their_start_and_nothing_else():
    both = {"edge", "edge-agent"}
    assert restarted() == set()
    assert restarted(credential={"existingSecret": "", "value": "another"}) == both
    external = {"url": "redis://another"}
    assert restarted(store={"bundled": {"enabled": False}, "external": external}) == both
    # of descriptors agents know nothing
    assert restarted(rls={"enabled": True, "mapping": "x = 1"}) == {"edge"}
    assert restarted(rls={"enabled": False, "mapping": "x = 1"}) == set()


def test_the_rate_limit_service_is_reached_where_it_is_switched_on():
    manifests = render(
        DATA_PLANE, with_required(DATA_PLANE, {"rls": {"enabled": True, "port": 9191, "mapping": "x = 1"}})
    )
    ports = {port["name"]: port["port"] for port in manifest(manifests, "Service", "edge")["spec"]["ports"]}
    pod = deployment(manifests)["spec"]["template"]["spec"]
    env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    listening = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports["grpc"] == int(env["TIDEGATE_RLS_PORT"]) == listening["grpc"] == 9191
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert env["TIDEGATE_RLS_MAPPING_FILE"] == mounted["rls"] + "/mapping.toml"
    assert manifest(manifests, "ConfigMap", "edge-rls")["data"] == {"mapping.toml": "x = 1"}
    assert "rls" not in str(render(DATA_PLANE, with_required(DATA_PLANE, {})))


def test_gateways_learn_whether_the_rate_limit_service_speaks_tls():
    """`kubernetes.io/h2c` is HTTP/2 in clear: gateways that go by it would not begin TLS."""

    def told(tls: dict[str, str]) -> str | None:
        values = with_required(DATA_PLANE, {"rls": {"enabled": True}, "node": {"tls": tls}})
        (port,) = [
            port
            for port in manifest(render(DATA_PLANE, values), "Service", "edge")["spec"]["ports"]
            if port["name"] == "grpc"
        ]
        return port.get("appProtocol")

    assert told({}) == "kubernetes.io/h2c"
    assert told({"existingSecret": "node-tls"}) is None


def test_nodes_get_time_to_drain():
    pod = deployment(render(DATA_PLANE, with_required(DATA_PLANE, {"node": {"drainSeconds": 30}})))
    assert pod["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 30 + 10
    assert pod["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_replicas_get_time_to_finish():
    for settings, least in (({}, 5 + 10), ({"SHUTDOWN_GRACE_S": "60"}, 5 + 60)):
        pod = deployment(render(CONTROL_PLANE, with_required(CONTROL_PLANE, {"settings": settings})))
        assert pod["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= least + 10


PROCESSES = {
    "node": (DATA_PLANE, NodeSettings, "edge", ("settings",), set()),
    # what both know is given once, to both
    "agent": (DATA_PLANE, AgentSettings, "edge-agent", ("agent", "settings"),
              {"REDIS_CREDENTIALS", "REDIS_DEADLINE_MS", "REDIS_PASSWORD_FILE", "REDIS_SENTINEL_USERNAME",
               "USAGE_STREAM_MAX_MB"}),
    # in clear in a pod they would be: adminToken.existingSecret and oidc.existingSecret are for that
    "control-plane": (
        CONTROL_PLANE, ControlPlaneSettings, "edge", ("settings",), {"ADMIN_TOKEN", "OIDC_CLIENT_SECRET"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES)
def test_each_setting_has_one_place_in_the_values(process):
    """What a chart sets from a value, or by itself; the rest is taken under `settings`, and nothing else is."""
    chart, settings, name, path, elsewhere = PROCESSES[process]
    place = json.loads((chart / "values.schema.json").read_text())
    for part in path:
        place = place["properties"][part]
    set_by_chart: set[str] = set()
    for of, values in CASES.values():
        if of == chart:
            bare = {name: value for name, value in values.items() if name != "settings"}
            pod = manifest(render(chart, with_required(chart, bare)), "Deployment", name)["spec"]["template"]["spec"]
            env = [one["name"] for one in pod["containers"][0]["env"]]
            set_by_chart |= {name.removeprefix("TIDEGATE_") for name in env if name.startswith("TIDEGATE_")}
    names = {name.upper() for name in settings.model_fields}
    assert set_by_chart <= names
    assert set(place["propertyNames"]["enum"]) == names - set_by_chart - elsewhere


def test_settings_of_nodes_and_agents_reach_both():
    values = {
        "settings": {"REDIS_DEADLINE_MS": 40, "TRACES_SHARE": 0.5},
        "agent": {"settings": {"LOAD_SERVERS": "a=http://b"}},
    }
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, values))
    told = {}
    for name in ("edge", "edge-agent"):
        container = manifest(manifests, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
        told[name] = {one["name"].removeprefix("TIDEGATE_"): one.get("value") for one in container["env"]}
    assert told["edge"]["REDIS_DEADLINE_MS"] == told["edge-agent"]["REDIS_DEADLINE_MS"] == "40"
    assert ("TRACES_SHARE" in told["edge"], "TRACES_SHARE" in told["edge-agent"]) == (True, False)
    assert ("LOAD_SERVERS" in told["edge"], "LOAD_SERVERS" in told["edge-agent"]) == (False, True)
    # who a process is, where its control plane and its store are, is the same for both
    assert told["edge"].keys() & told["edge-agent"].keys() >= {"REGION", "CONTROL_PLANE_PUBLIC_KEY", "REDIS_URL"}


def test_the_login_of_the_store_is_the_same_for_nodes_and_agents():
    """A provider, or a file that an init container or a sidecar writes into a volume."""
    known = {name.upper() for name in AgentSettings.model_fields}
    places = json.loads((DATA_PLANE / "values.schema.json").read_text())["properties"]["settings"]["propertyNames"]
    both = {name: "1" for name in places["enum"] if name in known}
    volume, mount = {"name": "login", "emptyDir": {}}, {"name": "login", "mountPath": "/login"}
    login = {"name": "login", "image": "vault:1"}
    extra = {"extraVolumes": [volume], "extraVolumeMounts": [mount], "initContainers": [login], "sidecars": [login]}
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, {"settings": both} | extra))
    for name in ("edge", "edge-agent"):
        pod = manifest(manifests, "Deployment", name)["spec"]["template"]["spec"]
        own, beside = pod["containers"]
        told = {one["name"].removeprefix("TIDEGATE_"): one.get("value") for one in own["env"]}
        assert {setting: told.get(setting) for setting in both} == both
        assert mount in own["volumeMounts"]
        assert volume in pod["volumes"]
        assert pod["initContainers"] == [beside] == [login]


def test_other_regions_come_to_agents_and_gateways_to_nodes():
    values = {
        "ingress": {
            "enabled": True,
            "host": "us-east.example",
            "paths": ["/internal/v1/", "/internal", "/v1/authorize"],
        },
        "peers": {"tlsSecret": "peers-tls", "clientCertificate": True},
        "agent": {"tls": {"existingSecret": "agent-tls", "clientCAKey": "ca.crt"}},
    }
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, values))
    paths = manifest(manifests, "Ingress")["spec"]["rules"][0]["http"]["paths"]
    leads = {path["path"]: path["backend"]["service"]["name"] for path in paths}
    assert leads == {"/internal/v1/": "edge-agent", "/internal": "edge-agent", "/v1/authorize": "edge"}
    spec = manifest(manifests, "Deployment", "edge-agent")["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["command"] == ["tidegate", "region-agent"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert env["TIDEGATE_PORT"] == str(container["ports"][0]["containerPort"])
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("PEERS_CA_FILE", "PEERS_CERT_FILE", "TLS_CERT_FILE", "TLS_CLIENT_CA_FILE", "SNAPSHOT_FILE"):
        assert env[f"TIDEGATE_{name}"].rpartition("/")[0] in mounted
    node = deployment(manifests)["spec"]["template"]["spec"]
    assert "peers" not in str(node)


def test_the_migration_runs_before_anything_else_and_finds_its_secret():
    values = with_required(CONTROL_PLANE, {"database": {"existingSecret": "", "url": "postgresql+asyncpg://db/x"}})
    manifests = render(CONTROL_PLANE, values)
    job, secret = manifest(manifests, "Job"), manifest(manifests, "Secret", "edge-migrate")
    hooks = [one["metadata"]["annotations"] for one in (secret, job)]
    assert [hook["helm.sh/hook"] for hook in hooks] == ["pre-install,pre-upgrade"] * 2
    assert int(hooks[0]["helm.sh/hook-weight"]) < int(hooks[1]["helm.sh/hook-weight"])
    named = job["spec"]["template"]["spec"]["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"]
    assert named == secret["metadata"]["name"]


def test_probes_and_prometheus_ask_where_no_certificate_is_needed():
    values = {"node": {"tls": {"existingSecret": "node-tls", "clientCAKey": "ca.crt"}}, "podMonitor": {"enabled": True}}
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, values))
    container = deployment(manifests)["spec"]["template"]["spec"]["containers"][0]
    probes = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {(probe["port"], probe.get("scheme", "HTTP")) for probe in probes.values()} == {("health", "HTTP")}
    assert probes["readinessProbe"]["path"] == "/readyz"
    endpoint = manifest(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"][0]
    assert (endpoint["port"], endpoint.get("scheme", "http")) == ("health", "http")
    allowed = manifest(manifests, "NetworkPolicy", "edge")["spec"]["ingress"][0]["ports"]
    assert {"port": "health"} in allowed
    # it is not offered to the cluster
    service = manifest(manifests, "Service", "edge")["spec"]["ports"]
    assert "health" not in {port["name"] for port in service} | {port["targetPort"] for port in service}


@pytest.mark.parametrize("chart", [DATA_PLANE, CONTROL_PLANE], ids=["data-plane", "control-plane"])
def test_who_scales_decides_how_many_there_are(chart):
    fixed = render(chart, with_required(chart, {}))
    assert deployment(fixed)["spec"]["replicas"] >= 2
    assert "HorizontalPodAutoscaler" not in {one["kind"] for one in fixed}
    scaled = render(chart, with_required(chart, {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 4}}))
    assert "replicas" not in deployment(scaled)["spec"]
    scaler = manifest(scaled, "HorizontalPodAutoscaler")["spec"]
    assert (scaler["scaleTargetRef"]["name"], scaler["minReplicas"], scaler["maxReplicas"]) == ("edge", 2, 4)


@pytest.mark.parametrize(("chart", "values", "named"), BAD, ids=[f"{bad[0].name}, {bad[2]}" for bad in BAD])
def test_bad_values_are_refused_by_name(chart, values, named):
    with pytest.raises(helm_python.HelmError) as refused:
        render_checked(chart, with_required(chart, values))
    assert named.replace("/", ".") in str(refused.value).replace("/", ".")
