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
CASES = {
    f"{chart.name}, {path.name.removesuffix('-values.yaml')}": (chart, YAML(typ="safe").load(path))
    for chart in REQUIRED
    for path in sorted((chart / "ci").glob("*-values.yaml"))
}
"""What the charts' own ci/ has: the values that chart-testing would install."""
FULL = {chart: CASES[f"{chart.name}, full"][1] for chart in REQUIRED}


def with_required(chart: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The values that a chart cannot do without, and these."""
    return _merged(REQUIRED[chart], values)


def render(chart: Path, values: dict[str, Any], release: str = "edge") -> list[dict[str, Any]]:
    """The manifests that this release would make, notes left out."""
    loaded = helm_python.Chart.load(chart)
    files = loaded.render(values, name=release, namespace="tidegate", is_install=True)
    yaml = YAML(typ="safe")
    yaml.version = (1, 1)  # as Kubernetes reads it: `no` is false
    texts = [text for path, text in files.items() if not path.endswith(".txt")]
    return [manifest for text in texts for manifest in yaml.load_all(text) if manifest]


def render_checked(chart: Path, values: dict[str, Any]) -> None:
    """As `helm install` does: the schema first, then the templates."""
    helm_python.Chart.load(chart).validate_schema(values)
    render(chart, values)


def manifest(manifests: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """The one manifest of this kind (and name)."""
    found = [one for one in manifests if one["kind"] == kind and name in {None, one["metadata"]["name"]}]
    assert len(found) == 1, [(one["kind"], one["metadata"]["name"]) for one in manifests]
    return found[0]


def deployment(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The Deployment that is called as the release: of the control plane's replicas, or of nodes, not of agents."""
    (found,) = [one for one in manifests if one["kind"] == "Deployment" and not _is_of_agents(one)]
    return found


def _is_of_agents(one: dict[str, Any]) -> bool:
    name: str = one["metadata"]["name"]
    return name.endswith("-agent")


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(base[name], value) if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in over.items()
    }
    return {**base, **both}
