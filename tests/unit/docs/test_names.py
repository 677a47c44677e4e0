"""Settings, metrics and decisions that pages name are there."""

import re
from pathlib import Path

import pytest

from control_plane.settings import Settings as ControlPlaneSettings
from data_plane.settings import AgentSettings
from data_plane.settings import Settings as NodeSettings
from testing.pages import ROOT, pages

ALL_SETTINGS = (NodeSettings, AgentSettings, ControlPlaneSettings)
SETTINGS = {f"TIDEGATE_{name.upper()}" for settings in ALL_SETTINGS for name in settings.model_fields}
OF_OTHERS = {
    *("TIDEGATE_ASK", "TIDEGATE_GATEWAY_TOKEN"),  # the examples of gateways
    *("TIDEGATE_URL", "TIDEGATE_NODE_URL"),  # the command line
    *("TIDEGATE_TEST_EFFORT", "TIDEGATE_SOAK_LEASES", "TIDEGATE_UNAUTHORIZED"),  # tests; names in the Express package
}
METRICS = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE))
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


@pytest.mark.parametrize("page", pages())
def test_settings_and_metrics_of_a_page_are_there(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert set(re.findall(r"\bTIDEGATE_[A-Z_]*[A-Z]\b", text)) <= SETTINGS | OF_OTHERS
    metrics = set(re.findall(r"`(tidegate_[a-z_]+|rate_limit_[a-z_]+(?:_total|_seconds|_units))[`{]", text))
    assert metrics - {"tidegate_client"} <= METRICS


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_the_number_of_its_file(page: Path) -> None:
    assert page.read_text("utf-8").startswith(f"# {int(page.name[:4])}. ")
