"""The artefacts of a release: those that `make release` has just made (``TIDEGATE_RELEASE``), or made here by night."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.effort import NIGHTLY
from testing.stack import READY_TIMEOUT_S, arguments, stack_options
from tests.release.environments import ROOT, Demo, Environment
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import LOOPBACK
from tools.release.versions import version

BUILDS = {"dist", "installed", "version_before"}
"""Fixtures that build or install for minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    made = os.environ.get("TIDEGATE_RELEASE") or NIGHTLY
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(600))  # installs and builds share two cores with everything else
            if not made and set(getattr(item, "fixturenames", ())) & BUILDS:
                item.add_marker(
                    pytest.mark.skip(reason="builds and installs: `make release` runs it, or `make nightly`")
                )


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with every artefact."""
    made = os.environ.get("TIDEGATE_RELEASE")
    if made:
        return Path(made).absolute()
    if shutil.which("npm") is None:
        pytest.skip("needs npm (Debian package npm)")
    out = tmp_path_factory.mktemp("release") / "dist"
    command = [sys.executable, "-m", "tools.release", "build", "--changed", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="session")
def number() -> str:
    """The version."""
    return version(ROOT)


@pytest.fixture(scope="session")
def installed(dist: Path, number: str, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment that had nothing before, with the wheel and its extra `local`."""
    environment = Environment(tmp_path_factory.mktemp("installed") / "environment")
    environment.install(f"{dist / f'tidegate-{number}-py3-none-any.whl'}[local]")
    return environment


@pytest.fixture(scope="session")
def demo(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`tidegate up --demo` out of the wheel."""
    place = tmp_path_factory.mktemp("demo")
    (place / "tmp").mkdir()
    options = stack_options(demo=True)
    up = Child(
        "tidegate up", [installed.program("tidegate"), "up", *arguments(options, None)],
        log_path=place / "up.log", directory=place, env={"TMPDIR": str(place / "tmp"), "PYTHONPATH": ""},
    )  # fmt: skip
    started = time.monotonic()
    up.start()
    try:
        wait_until_ready(up, lambda: "\nready: " in up.log_path.read_text(), timeout_s=READY_TIMEOUT_S)
        yield Demo(
            environment=installed, output=up.log_path.read_text(),
            node=f"http://{LOOPBACK}:{options.first_node_port}", started=started,
        )  # fmt: skip
    finally:
        up.stop(timeout_s=40)
