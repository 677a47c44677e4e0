"""What runs on GitHub: it parses, asks for little, is pinned, and calls commands that are there."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from testing.go_tools import go_tool

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def read(path: Path) -> dict[str, Any]:
    content = YAML(typ="safe").load(path)
    assert isinstance(content, dict), path
    return content


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.name)
def test_every_file_is_yaml(path: Path) -> None:
    assert read(path)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_reads_and_no_more(workflow: Path) -> None:
    assert read(workflow)["permissions"] == {"contents": "read"}
    assert [name for name, job in read(workflow)["jobs"].items() if "permissions" in job] == []
    assert "pull_request_target" not in read(workflow)["on"]
    assert "secrets." not in workflow.read_text()
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False]
    assert all(job["timeout-minutes"] <= 60 for job in read(workflow)["jobs"].values())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_with_its_full_version(workflow: Path) -> None:
    used = [line.strip().removeprefix("- ") for line in workflow.read_text().splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if PINNED.fullmatch(line) is None] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_is_there(workflow: Path) -> None:
    commands = [line.strip() for step in steps(workflow) for line in step.get("run", "").splitlines()]
    assert commands
    for command in commands:
        program, *words = command.split()
        if program == "make":
            known = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
            assert known.returncode == 0, f"{command}: {known.stderr}"
        else:
            assert os.access(ROOT / program, os.X_OK), command


def test_actionlint_finds_nothing_in_a_workflow() -> None:
    """Without shellcheck and pyflakes: a workflow's scripts are commands that are there."""
    command = [go_tool("actionlint"), "-no-color", "-shellcheck=", "-pyflakes=", *map(str, WORKFLOWS)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_ci_and_the_release_are_called() -> None:
    commands = {step.get("run", "").strip() for workflow in WORKFLOWS for step in steps(workflow)}
    assert {".ci/run", "make release"} <= commands


def test_dependabot_watches_folders_that_are_there() -> None:
    watched = read(GITHUB / "dependabot.yml")["updates"]
    assert {one["package-ecosystem"] for one in watched} == {"pip", "npm", "github-actions", "docker"}
    wanted = {"pip": ("pyproject.toml", "dev.txt"), "npm": ("package.json",), "docker": ("Containerfile",)}
    for one in watched:
        for folder in one.get("directories", [one.get("directory")]):
            names = wanted.get(one["package-ecosystem"], (".github",))
            assert any((ROOT / folder.strip("/") / name).exists() for name in names), folder
