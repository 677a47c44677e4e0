"""Charts rendered offline by Helm's own engine (wheel `helm-python-sdk`), and the values to render them with."""

from pathlib import Path
from typing import Any

import helm_python
from ruamel.yaml import YAML

CHARTS = Path(__file__).parents[2] / "helm"
DATA_PLANE, CONTROL_PLANE = CHARTS / "data-plane", CHARTS / "control-plane"

REQUIRED: dict[Path, dict[str, Any]] = {
    DATA_PLANE: {
        "region": "us-east",
        "controlPlane": {"url": "http://tidegate-control-plane.tidegate.svc:8000", "publicKey": "ab" * 32},
        "credential": {"existingSecret": "us-east-credential"},
    },
    CONTROL_PLANE: {
        "database": {"existingSecret": "tidegate-database"},
        "signingKey": {"existingSecret": "tidegate-signing-key"},
    },
}
OFF = {"enabled": False}
ON = {"enabled": True}
MINIMAL: dict[Path, dict[str, Any]] = {
    DATA_PLANE: {
        "credential": {"existingSecret": "", "value": "tgr_made-up"},
        "replicas": 1,
        "store": {"bundled": OFF, "external": {"url": "rediss://user:secret@redis.example:6380/0"}},
        "podDisruptionBudget": OFF,
        "topologySpread": OFF,
        "networkPolicy": OFF,
        "serviceAccount": {"create": False},
    },
    CONTROL_PLANE: {
        "database": {"existingSecret": "", "url": "postgresql+asyncpg://user:secret@postgres.example:5432/tidegate"},
        "replicas": 1,
        "migration": OFF,
        "podDisruptionBudget": OFF,
        "topologySpread": OFF,
        "networkPolicy": OFF,
        "serviceAccount": {"create": False},
    },
}
_PLACED = {
    "imagePullSecrets": [{"name": "registry"}],
    "podAnnotations": {"team": "edge"},
    "podLabels": {"cost-centre": "42"},
    "nodeSelector": {"pool": "edge"},
    "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "In", "values": ["amd64"]}]}]
            }
        }
    },
    "priorityClassName": "edge-critical",
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "serviceAccount": {"create": True, "name": "tidegate", "annotations": {"role": "reader"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "runbooks": "https://runbooks.example"},
    "image": {"repository": "registry.example/tidegate", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
}
FULL: dict[Path, dict[str, Any]] = {
    DATA_PLANE: {
        **_PLACED,
        "autoscaling": ON,
        "node": {
            "trust": "required", "dialect": "nginx", "drainSeconds": 2.5, "readyWithoutStore": True,
            "tls": {"existingSecret": "node-tls"},
        },
        "controlPlane": {"caSecret": "corporate-ca"},
        "settings": {"REDIS_DEADLINE_MS": 40},
        "rls": {"enabled": True, "mapping": "# as it is\n"},
        "peers": {"tlsSecret": "peers-tls", "clientCertificate": True},
        "store": {"bundled": {"persistence": {"storageClass": "fast"}, "nodeSelector": {"pool": "data"},
                              "tolerations": [{"operator": "Exists"}],
                              "affinity": {"podAntiAffinity": {}}}},
        "ingress": {"enabled": True, "className": "nginx", "host": "us-east.example", "tlsSecret": "edge-tls",
                    "annotations": {"a": "b"}},
        "service": {"annotations": {"a": "b"}},
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"gateway": "yes"}}}],
                          "extraEgress": [{"ports": [{"port": 9090}]}]},
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    CONTROL_PLANE: {
        **_PLACED,
        "autoscaling": ON,
        "adminToken": {"existingSecret": "first-admin"},
        "settings": {"HEARTBEAT_S": 2},
        "ingress": {"enabled": True, "className": "nginx", "host": "control.example", "tlsSecret": "edge-tls"},
        "service": {"annotations": {"a": "b"}},
        "networkPolicy": {"from": [{"podSelector": {}}], "extraEgress": [{"ports": [{"port": 9090}]}]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True, "annotations": {"folder": "tidegate"}},
    },
}  # fmt: skip
SENTINEL: dict[str, Any] = {
    "store": {
        "bundled": OFF,
        "external": {
            "existingSecret": "store", "shape": "sentinel", "sentinels": ["s1:26379", "s2:26379"],
            "masterName": "tidegate", "sentinelSecret": "sentinels", "tlsSecret": "store-tls",
            "clientCertificate": True,
        },
    },
    "node": {"tls": {"existingSecret": "node-tls", "clientCAKey": "ca.crt"}},
}  # fmt: skip
CLUSTER: dict[str, Any] = {
    "store": {
        "bundled": OFF,
        "external": {"existingSecret": "store", "shape": "cluster", "clusterNodes": ["c1:6379", "c2:6379"]},
    }
}
CASES = {
    "data-plane, default": (DATA_PLANE, {}),
    "data-plane, minimal": (DATA_PLANE, MINIMAL[DATA_PLANE]),
    "data-plane, full": (DATA_PLANE, FULL[DATA_PLANE]),
    "data-plane, sentinel": (DATA_PLANE, SENTINEL),
    "data-plane, cluster": (DATA_PLANE, CLUSTER),
    "control-plane, default": (CONTROL_PLANE, {}),
    "control-plane, minimal": (CONTROL_PLANE, MINIMAL[CONTROL_PLANE]),
    "control-plane, full": (CONTROL_PLANE, FULL[CONTROL_PLANE]),
}


def with_required(chart: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The values that a chart cannot do without, and these."""
    return _merged(REQUIRED[chart], values)


def render(chart: Path, values: dict[str, Any], release: str = "edge") -> list[dict[str, Any]]:
    """The manifests that this release would make, notes left out."""
    loaded = helm_python.Chart.load(chart)
    files = loaded.render(values, name=release, namespace="tidegate", is_install=True)
    yaml = YAML(typ="safe")
    texts = [text for path, text in files.items() if not path.endswith(".txt")]
    return [manifest for text in texts for manifest in yaml.load_all(text) if manifest]


def manifest(manifests: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """The one manifest of this kind (and name)."""
    found = [one for one in manifests if one["kind"] == kind and name in {None, one["metadata"]["name"]}]
    assert len(found) == 1, [(one["kind"], one["metadata"]["name"]) for one in manifests]
    return found[0]


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(base[name], value) if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in over.items()
    }
    return {**base, **both}
