"""docs/operating.md names every setting of every process, and every job, and none that is not there."""

import re
from pathlib import Path
from typing import Any

import pytest

from control_plane.canary.service import RolloutEngine
from control_plane.schedule import jobs_of
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


EVERY = {"s": 1, "min": 60, "h": 3600}


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


def test_every_job_is_on_the_page_with_how_often_it_runs():
    nothing: Any = None
    settings = ControlPlaneSettings(database_url="postgresql://nobody@127.0.0.1:1/none", signing_key_file="none")
    engine = RolloutEngine(nothing, nothing, nothing, 5.0)
    jobs = jobs_of(settings, nothing, nothing, nothing, nothing, engine, nothing)
    table = PAGE.partition("| job | every | |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]*) \| (\d+) (s|min|h) \|", table, re.MULTILINE)
    named = {name: int(count) * EVERY[unit] for names, count, unit in rows for name in re.findall(r"`([\w-]+)`", names)}
    assert named == {job.name: job.every_s for job in jobs}
