"""What charts ask a cluster for as they are rendered, by Helm's own client and an API server that a test plays."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import helm_python
import pytest
from ruamel.yaml import YAML

from tests.charts.rendering import CONTROL_PLANE, DATA_PLANE, deployment, manifest, with_required

BOTH = pytest.mark.parametrize("chart", [DATA_PLANE, CONTROL_PLANE], ids=["data-plane", "control-plane"])


def _kinds(version: str, **names: str) -> dict[str, Any]:
    resources = [{"name": name, "kind": kind, "namespaced": True, "verbs": ["get"]} for name, kind in names.items()]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


APPS = {"groupVersion": "apps/v1", "version": "v1"}
DISCOVERY: dict[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1",
              "groups": [{"name": "apps", "versions": [APPS], "preferredVersion": APPS}]},
    "/api/v1": _kinds("v1", secrets="Secret"),
    "/apis/apps/v1": _kinds("apps/v1", deployments="Deployment"),
}  # fmt: skip


class Cluster:
    """What is in the namespace `tidegate`: Deployments by their replicas, Secrets by their data."""

    def __init__(self) -> None:
        self.replicas: dict[str, int] = {}
        self.secrets: dict[str, str] = {}

    def answer(self, path: str) -> dict[str, Any] | None:
        """The object at this path of the API; none where there is none."""
        where, _, name = path.rpartition("/")
        if where.endswith("/namespaces/tidegate/deployments") and name in self.replicas:
            spec = {"replicas": self.replicas[name]}
            return {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": name}, "spec": spec}
        if where.endswith("/namespaces/tidegate/secrets") and name in self.secrets:
            data = {"url": base64.b64encode(self.secrets[name].encode()).decode()}
            return {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "data": data}
        return DISCOVERY.get(path)

    def render(self, url: str, chart: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
        """The manifests of a release, rendered by a client of this cluster."""
        config = helm_python.Config(kubeconfig_content=KUBECONFIG.replace("URL", url), namespace="tidegate")
        files = config.render(
            helm_python.Chart.load(chart),
            with_required(chart, values),
            name="edge",
            namespace="tidegate",
            is_upgrade=True,
        )
        texts = [text for path, text in files.items() if not path.endswith(".txt")]
        return [one for text in texts for one in YAML(typ="safe").load_all(text) if one]


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{ name: played, cluster: { server: "URL" } }]
users: [{ name: nobody, user: {} }]
contexts: [{ name: played, context: { cluster: played, user: nobody } }]
current-context: played
"""


@pytest.fixture
def cluster() -> Iterator[tuple[Cluster, str]]:
    played = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = played.answer(self.path.partition("?")[0])
            body = json.dumps(
                found or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            ).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield played, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@BOTH
def test_autoscaling_that_is_turned_on_leaves_replicas_as_they_are(cluster, chart):
    """A field that an upgrade takes away falls back to 1, until the scaler notices."""
    played, url = cluster
    values = {"autoscaling": {"enabled": True}}
    assert "replicas" not in deployment(played.render(url, chart, values))["spec"]
    played.replicas["edge"] = 7
    assert deployment(played.render(url, chart, values))["spec"]["replicas"] == 7


@pytest.mark.parametrize(
    ("chart", "secret", "values"),
    [(DATA_PLANE, "us-east-credential", {}), (CONTROL_PLANE, "tidegate-database", {}),
     (CONTROL_PLANE, "oidc-ca", {"oidc": {"caSecret": "oidc-ca"}})],
    ids=["data-plane", "control-plane", "identity provider"],
)  # fmt: skip
def test_pods_follow_a_secret_that_changed_before_an_upgrade(cluster, chart, secret, values):
    played, url = cluster

    def checksum() -> str:
        annotations = deployment(played.render(url, chart, values))["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/secrets"])

    played.secrets[secret] = "one"
    before = checksum()
    assert checksum() == before
    played.secrets[secret] = "two"
    assert checksum() != before


def test_the_bundled_store_follows_its_password_as_nodes_do(cluster):
    """New nodes with the new password would wait for ever for a store that has the old one."""
    played, url = cluster

    def checksums(**given: str) -> list[str]:
        manifests = played.render(url, DATA_PLANE, {"store": {"bundled": given}})
        pods = [
            one["spec"]["template"]["metadata"] for one in (deployment(manifests), manifest(manifests, "StatefulSet"))
        ]
        return [
            pod["annotations"][name] for pod, name in zip(pods, ("checksum/secrets", "checksum/config"), strict=True)
        ]

    played.secrets["store-password"] = "one"
    before = checksums(existingSecret="store-password")
    assert checksums(existingSecret="store-password") == before
    played.secrets["store-password"] = "two"
    assert all(one != other for one, other in zip(checksums(existingSecret="store-password"), before, strict=True))
    # the one that the chart makes is there from the second release on, and is no reason
    made = checksums()
    played.secrets["edge-store"] = "made"
    assert checksums() == made
