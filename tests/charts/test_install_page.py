"""The page on installing says what works: its values render, and the paths and commands that it names exist."""

import re
from pathlib import Path
from typing import Any

import helm_python
import pytest
from ruamel.yaml import YAML

from tests.charts.rendering import CONTROL_PLANE, DATA_PLANE, deployment, manifest, render

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "install-kubernetes.md").read_text()


def values(containing: str) -> dict[str, Any]:
    """The YAML of the page that contains this."""
    found = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if containing in text]
    assert len(found) == 1
    text = re.sub(r'"\.\.\.64 hex digits[^"]*"', '"' + "ab" * 32 + '"', found[0])
    loaded = YAML(typ="safe").load(text)
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize(
    ("chart", "containing"), [(CONTROL_PLANE, "# control-plane.yaml"), (DATA_PLANE, "# us-east.yaml")]
)
def test_the_values_of_the_page_render(chart, containing):
    given = values(containing)
    helm_python.Chart.load(chart).validate_schema(given)
    manifests = render(chart, given, "tidegate" if chart == CONTROL_PLANE else "us-east")
    assert deployment(manifests)["metadata"]["name"] in {"tidegate", "us-east"}
    assert manifest(manifests, "Ingress")["spec"]["rules"][0]["host"].endswith("tidegate.example")


def test_every_store_of_the_page_renders():
    text = next(text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if text.startswith("store:"))
    variants = re.findall(r"external: (\{.*?\})(?:  |\n|$)", text)
    assert len(variants) == 3
    for variant in variants:
        store = {"bundled": {"enabled": False}, "external": YAML(typ="safe").load(variant)}
        given = {**values("# us-east.yaml"), "store": store}
        helm_python.Chart.load(DATA_PLANE).validate_schema(given)
        env = deployment(render(DATA_PLANE, given))["spec"]["template"]["spec"]["containers"][0]["env"]
        shapes = [entry["value"] for entry in env if entry["name"] == "TIDEGATE_REDIS_SHAPE"]
        assert shapes == [store["external"].get("shape", "standalone")]


def test_the_names_that_the_page_uses_are_those_that_the_charts_make():
    manifests = render(CONTROL_PLANE, values("# control-plane.yaml"), "tidegate")
    assert "job/tidegate-migrate" in PAGE
    assert manifest(manifests, "Job")["metadata"]["name"] == "tidegate-migrate"
    assert manifest(manifests, "Service")["metadata"]["name"] == "tidegate"
    nodes = render(DATA_PLANE, values("# us-east.yaml"), "us-east")
    assert "http://us-east.tidegate.svc:8101" in PAGE
    assert manifest(nodes, "Service", "us-east")["spec"]["ports"][0]["port"] == 8101
