"""docs/operating.md names every setting of nodes, agents and the control plane, and none that is not there."""

import re
from pathlib import Path

import pytest

from control_plane.settings import Settings as ControlPlaneSettings
from data_plane.settings import AgentSettings
from data_plane.settings import Settings as NodeSettings

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
NODE, _, REST = PAGE.partition("## Agent settings")
AGENT, _, REST = REST.partition("## Control plane settings")
PARTS = {
    "node": (NODE, NodeSettings),
    "agent": (AGENT, AgentSettings),
    "control plane": (REST.partition("\n## ")[0], ControlPlaneSettings),
}


@pytest.mark.parametrize("plane", PARTS)
def test_every_setting_is_on_the_page_and_nothing_else_is(plane):
    text, settings = PARTS[plane]
    required = re.search(r"Required: (.*?\.)(?:\s|$)", text, re.DOTALL).group(1)
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", " ".join([required, *cells])))
    mentioned = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", text))
    known = {name.upper() for name in settings.model_fields}
    assert known - mentioned == set(), "not on the page"
    assert named - known == set(), "on the page, but no setting"
    assert len(named) > 10
