"""What pods may reach: the ports that their values name, and no others."""

import ipaddress
from typing import Any

import pytest

from tests.charts.rendering import CONTROL_PLANE, DATA_PLANE, manifest, render, with_required


def store(**external) -> dict[str, Any]:
    """An external store; nodes may reach what the values name only."""
    policy = {"egressPorts": [], "externalStorePort": 7000}
    return {"store": {"bundled": {"enabled": False}, "external": external}, "networkPolicy": policy}


def allowed_egress(manifests, name: str) -> set[int]:
    """The TCP ports that a policy lets its pods reach, DNS left out."""
    rules = manifest(manifests, "NetworkPolicy", name)["spec"]["egress"]
    return {port["port"] for rule in rules for port in rule["ports"] if port["port"] != 53}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, {80, 443, 6379, 8000, 8201}),
        ({"controlPlane": {"url": "https://control.example:8443/"}, "networkPolicy": {"egressPorts": []}},
         {6379, 8443}),
        ({"controlPlane": {"url": "https://control.example"}, "networkPolicy": {"egressPorts": [8201]}},
         {443, 6379, 8201}),
        ({"networkPolicy": {"egressPorts": []},
          "settings": {"TRACES_URL": "http://collector:4318/v1/traces"}},
         {4318, 6379, 8000}),
        (store(url="rediss://user:se:cret@redis.example:6380/0"), {6380, 8000}),
        (store(url="redis://redis.example"), {6379, 8000}),
        (store(existingSecret="store"), {7000, 8000}),
        (store(existingSecret="store", shape="sentinel", sentinels=["s1:26379", "s2:26380"], masterName="m"),
         {7000, 8000, 26379, 26380}),
        (store(existingSecret="store", shape="cluster", clusterNodes=["c1:7001"]), {7000, 7001, 8000}),
    ],
)  # fmt: skip
def test_nodes_may_reach_the_ports_that_their_values_name_and_no_others(values, wanted):
    assert allowed_egress(render(DATA_PLANE, with_required(DATA_PLANE, values)), "edge") == wanted


def test_agents_may_reach_what_nodes_may_and_the_servers_that_load_is_pulled_from():
    servers = {"LOAD_SERVERS": "main=http://prometheus:9090, far=https://thanos.example/api"}
    values = {"networkPolicy": {"egressPorts": []}, "agent": {"settings": servers}}
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, values))
    assert allowed_egress(manifests, "edge-agent") == {443, 6379, 8000, 9090}
    assert allowed_egress(manifests, "edge") == {6379, 8000}


METADATA = ["169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200"]


@pytest.mark.parametrize("chart", [DATA_PLANE, CONTROL_PLANE], ids=["data-plane", "control-plane"])
def test_nobody_reaches_the_addresses_where_clouds_keep_secrets(chart):
    policies = [one for one in render(chart, with_required(chart, {})) if one["kind"] == "NetworkPolicy"]
    rules = [rule for policy in policies for rule in policy["spec"]["egress"] if rule["ports"][0]["port"] != 53]
    assert rules
    for rule in rules:
        blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
        for address in map(ipaddress.ip_address, METADATA):
            for block in blocks:
                if address in ipaddress.ip_network(block["cidr"]):
                    assert any(address in ipaddress.ip_network(part) for part in block["except"]), address
        # elsewhere they go as before; some networks do not take addresses for pods
        assert not blocks or {"namespaceSelector": {}} in rule["to"]


def test_only_its_own_namespace_reaches_nodes_unless_the_values_name_others():
    def whom(values) -> list[dict[str, Any]]:
        policy = manifest(render(DATA_PLANE, with_required(DATA_PLANE, values)), "NetworkPolicy", "edge")
        (rule,) = policy["spec"]["ingress"]
        agents = manifest(render(DATA_PLANE, with_required(DATA_PLANE, values)), "NetworkPolicy", "edge-agent")
        assert agents["spec"]["ingress"][0]["from"] == rule["from"]
        return rule["from"]

    assert whom({}) == [{"podSelector": {}}]
    gateways = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    named = whom({"networkPolicy": {"from": [gateways]}})
    assert named[0] == gateways
    # and the pod of `helm test`
    (labels,) = [peer["podSelector"]["matchLabels"] for peer in named[1:]]
    test = manifest(render(DATA_PLANE, with_required(DATA_PLANE, {})), "Pod")["metadata"]["labels"]
    assert labels.items() <= test.items()
    assert labels["app.kubernetes.io/name"] != "tidegate-data-plane"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, 5432),
        ({"networkPolicy": {"databasePort": 6432}}, 6432),
        ({"database": {"existingSecret": "", "url": "postgresql+asyncpg://u:p:5@db:5433/x?ssl=require"}}, 5433),
        ({"database": {"existingSecret": "", "url": "postgresql+asyncpg://u:p@db/x"}}, 5432),
        ({"database": {"existingSecret": "", "url": "postgresql:///x?host=/cloudsql/edge"}}, 5432),
    ],
)
def test_replicas_and_the_migration_may_reach_postgres(values, wanted):
    manifests = render(CONTROL_PLANE, with_required(CONTROL_PLANE, values))
    assert allowed_egress(manifests, "edge") == {wanted, 443}
    assert allowed_egress(manifests, "edge-migrate") == {wanted}
    # the policy is there before the job, and is for its pods
    policy, job = manifest(manifests, "NetworkPolicy", "edge-migrate"), manifest(manifests, "Job")
    hooks = [one["metadata"]["annotations"] for one in (policy, job)]
    assert [hook["helm.sh/hook"] for hook in hooks] == ["pre-install,pre-upgrade"] * 2
    assert int(hooks[0]["helm.sh/hook-weight"]) < int(hooks[1]["helm.sh/hook-weight"])


@pytest.mark.parametrize(
    ("issuer", "wanted"), [("https://login.example:8443/realms/edge", [443, 8443]), ("https://login.example", [443])]
)
def test_replicas_may_reach_the_identity_provider(issuer, wanted):
    oidc = {"issuer": issuer, "audience": "tidegate", "grants": [{"group": "sre", "role": "admin"}]}
    policy = manifest(render(CONTROL_PLANE, with_required(CONTROL_PLANE, {"oidc": oidc})), "NetworkPolicy", "edge")
    assert [port["port"] for port in policy["spec"]["egress"][-1]["ports"]] == wanted
