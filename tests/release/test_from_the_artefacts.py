"""Each artefact alone: installed where nothing else is, and run."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.release.environments import ROOT, Demo, Environment

EXPRESS = ROOT / "clients" / "express"
WHERE = "import json, {0}; print(json.dumps([m.__file__ for m in ({0},)]))"
ASK = """
import sys
from tidegate_client import Options
from tidegate_client.synchronous import Tidegate

with Tidegate(Options(urls=(sys.argv[1],))) as limiter:
    decision = limiter.check(api_key=sys.argv[2], method="GET", path="/api/users/1")
    print(decision.allowed, decision.limit)
"""
ASK_NODE = """
const { Limiter } = require('tidegate-express');
const limiter = new Limiter({ url: process.argv[2] });
limiter.check({ api_key: process.argv[3], method: 'GET', path: '/api/users/1' })
  .then((decision) => { console.log(decision.allowed, decision.limit); return limiter.close(); });
"""


def test_up_runs_from_the_wheel_and_answers_a_first_decision(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    question = {"api_key": demo.key(), "method": "GET", "path": "/api/users/123"}
    answer = httpx.post(f"{demo.node}/v1/check", json=question, trust_env=False)
    answered = time.monotonic()
    assert answer.status_code == 200, answer.text
    assert (answer.json()["allowed"], answer.json()["plan"], answer.json()["limit"]) == (True, "free", 1000)
    with capsys.disabled():
        by = "pip" if "TIDEGATE_RELEASE" in os.environ else "uv"
        of_it = demo.environment.install_s
        took = of_it + answered - demo.started
        print(f"\nfrom {by} install to the first decision: {took:.1f} s, {of_it:.1f} s of it to install")  # noqa: T201 - asked for


def test_nothing_that_runs_comes_from_the_clone(demo: Demo) -> None:
    python = demo.environment.program("python")
    for names in ("tidegate", "control_plane", "data_plane", "tidegate.contract"):
        (file,) = json.loads(demo.environment.run(python, "-c", WHERE.format(names)))
        assert Path(file).is_relative_to(demo.environment.directory)
    for foreign in ("lua", "contract", "migrations", "tools", "tests", "http_front", "bench"):
        found = "import importlib.util, sys; print(importlib.util.find_spec(sys.argv[1]))"
        assert demo.environment.run(python, "-c", found, foreign) == "None\n", foreign


def test_the_command_says_its_version(demo: Demo, number: str) -> None:
    assert demo.environment.run(demo.environment.program("tidegate"), "--version") == f"tidegate {number}\n"


def test_the_sdist_builds_the_same_wheel(dist: Path, number: str, tmp_path: Path) -> None:
    for name in ("tidegate", "tidegate_client"):
        sdist = dist / f"{name}-{number}.tar.gz"
        subprocess.run(["tar", "xzf", str(sdist), "-C", str(tmp_path)], check=True)
        epoch = json.loads((dist / f"tidegate-{number}.provenance.json").read_text())["predicate"]
        env = os.environ | {
            "SOURCE_DATE_EPOCH": str(epoch["buildDefinition"]["externalParameters"]["SOURCE_DATE_EPOCH"])
        }
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
        subprocess.run(command, cwd=tmp_path / f"{name}-{number}", env=env, check=True, capture_output=True)
        wheel = f"{name}-{number}-py3-none-any.whl"
        assert (tmp_path / wheel).read_bytes() == (dist / wheel).read_bytes()


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_python_client_asks_from_its_artefact(
    demo: Demo, dist: Path, number: str, tmp_path: Path, kind: str
) -> None:
    name = f"tidegate_client-{number}" + ("-py3-none-any.whl" if kind == "wheel" else ".tar.gz")
    environment = Environment(tmp_path / "environment")
    environment.install(str(dist / name))
    assert environment.run(environment.program("python"), "-c", ASK, demo.node, demo.key()) == "True 1000\n"


class Project:
    """An empty npm project in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "package.json").write_text('{ "name": "empty", "version": "1.0.0", "private": true }')

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"npm_config_cache": str(ROOT / ".cache" / "npm"), "npm_config_prefer_offline": "true"}
        return subprocess.run(command, cwd=self.directory, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path, dist: Path, number: str) -> Project:
    """The npm package in an empty project."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm (Debian package npm)")
    made = Project(tmp_path / "project")
    done = made.run(npm, "install", "--no-audit", "--no-fund", str(dist / f"tidegate-express-{number}.tgz"))
    assert done.returncode == 0, done.stderr
    return made


def test_the_npm_package_asks_and_brings_nothing_along(demo: Demo, project: Project) -> None:
    (project.directory / "ask.js").write_text(ASK_NODE)
    done = project.run("node", "ask.js", demo.node, demo.key())
    assert (done.stdout, done.returncode) == ("true 1000\n", 0), done.stderr
    installed = sorted(path.name for path in (project.directory / "node_modules").iterdir() if path.name[0] != ".")
    assert installed == ["tidegate-express"]


def test_the_types_of_the_npm_package_hold_for_a_users_program(project: Project) -> None:
    wanted = json.loads((EXPRESS / "package.json").read_text())["devDependencies"]
    lock = json.loads((EXPRESS / "package-lock.json").read_text())["packages"]
    pinned = [f"{name}@{lock[f'node_modules/{name}']['version']}" for name in wanted if name != "express5"]
    done = project.run("npm", "install", "--no-audit", "--no-fund", "--save-dev", *pinned)
    if done.returncode:
        pytest.skip(
            f"needs the packages that clients/express is tested with, and npm install failed: {done.stderr[-300:]}"
        )
    program = (EXPRESS / "test" / "types.ts").read_text()
    assert "'../index.js'" in program
    (project.directory / "user.ts").write_text(program.replace("'../index.js'", "'tidegate-express'"))
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "node16", "--types", "node"]
    done = project.run("node", "node_modules/typescript/bin/tsc", *options, "user.ts")
    assert done.returncode == 0, done.stdout


def test_a_program_with_a_mistake_does_not_compile(project: Project) -> None:
    """So that the test above says something: the types of the package are those that are read."""
    done = project.run("npm", "install", "--no-audit", "--no-fund", "--save-dev", "typescript@5.9.3")
    if done.returncode:
        pytest.skip(f"needs typescript, and npm install failed: {done.stderr[-300:]}")
    (project.directory / "user.ts").write_text("import { Limiter } from 'tidegate-express';\nnew Limiter({});\n")
    done = project.run("node", "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck",
                       "--module", "node16", "--target", "es2022", "user.ts")  # fmt: skip
    assert done.returncode != 0
    assert re.search(r"user\.ts\(2,\d+\)", done.stdout)
