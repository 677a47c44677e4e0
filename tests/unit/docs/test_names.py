"""Settings, metrics, commands, files and decisions that pages name are there."""

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from typer.testing import CliRunner

from control_plane.oidc_settings import GroupGrant
from control_plane.settings import Settings as ControlPlaneSettings
from data_plane.settings import AgentSettings
from data_plane.settings import Settings as NodeSettings
from testing.pages import ROOT, blocks, pages
from tidegate.cli import app

ALL_SETTINGS = (NodeSettings, AgentSettings, ControlPlaneSettings)
SETTINGS = {f"TIDEGATE_{name.upper()}" for settings in ALL_SETTINGS for name in settings.model_fields}
OF_OTHERS = {
    *("TIDEGATE_ASK", "TIDEGATE_GATEWAY_TOKEN"),  # the examples of gateways
    *("TIDEGATE_URL", "TIDEGATE_NODE_URL", "TIDEGATE_API_KEY"),  # the command line
    *("TIDEGATE_TEST_EFFORT", "TIDEGATE_SOAK_LEASES", "TIDEGATE_UNAUTHORIZED"),  # tests; names in the Express package
}
NEW = {"lua/session.lua"}
"""The example of a file that is to be made."""
METRICS = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE))
READERS: dict[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads, "yaml": YAML(typ="safe").load}
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


@pytest.mark.parametrize("page", pages())
def test_settings_and_metrics_of_a_page_are_there(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert set(re.findall(r"\bTIDEGATE_[A-Z_]*[A-Z]\b", text)) <= SETTINGS | OF_OTHERS
    metrics = set(re.findall(r"`(tidegate_[a-z_]+|rate_limit_[a-z_]+(?:_total|_seconds|_units))[`{]", text))
    assert metrics - {"tidegate_client"} <= METRICS


@pytest.mark.parametrize("page", pages())
def test_what_a_page_shows_of_a_file_can_be_read(page: str) -> None:
    for block in blocks(page):
        assert READERS.get(block.language, str)(block.text), block


def test_the_grants_of_the_page_are_grants() -> None:
    (grants,) = blocks("docs/oidc.md", "json")
    assert len(TypeAdapter(tuple[GroupGrant, ...]).validate_json(grants.text)) == 4


@cache
def files() -> tuple[str, ...]:
    """Every file of the repository, with ``/`` in front."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(f"/{name}" for name in listed.stdout.split())


@pytest.mark.parametrize("page", pages())
def test_files_of_a_page_are_there(page: str) -> None:
    named = re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|lua|md|toml|mjs))[`:]", (ROOT / page).read_text("utf-8"))
    assert [name for name in named if name not in NEW and not any(file.endswith(f"/{name}") for file in files())] == []


@pytest.mark.parametrize("page", pages())
def test_modules_that_a_page_runs_are_there(page: str) -> None:
    for module in re.findall(r"python3? -m\s+([\w.]+\w)", (ROOT / page).read_text("utf-8")):
        assert find_spec(module) is not None, module


@cache
def help_of(*words: str) -> str:
    """What `--help` of a command prints; empty where there is no such command."""
    shown = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [*words, "--help"])
    return shown.output if shown.exit_code == 0 else ""


@pytest.mark.parametrize("page", pages())
def test_commands_of_a_page_take_what_they_are_given(page: str) -> None:
    text = " ".join((ROOT / page).read_text("utf-8").split())
    for command in re.findall(r"`tidegate ([a-z][^`]*)`", text):
        words = re.match(r"[a-z-]+(?: [a-z-]+(?= |$))?", command.partition(" --")[0])
        assert words is not None
        group, *verb = words[0].split()
        shown = help_of(group, *verb) or help_of(group)
        assert shown, f"no such command: tidegate {command}"
        assert [option for option in re.findall(r"--[a-z][a-z-]*", command) if option not in shown] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_the_number_of_its_file(page: Path) -> None:
    assert page.read_text("utf-8").startswith(f"# {int(page.name[:4])}. ")
