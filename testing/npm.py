"""Packages from npm that tests need, in the clone's own folders."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[1] / ".cache" / "npm"
INSTALLS_IN_S = 100.0


def program(name: str) -> str:
    """Where a program is; skips the test where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian packages nodejs and npm)")
    return found


def install(package: Path) -> None:
    """Install what a folder's ``package-lock.json`` pins, one process of tests at a time; skips where npm fails."""
    npm, wanted, installed = program("npm"), package / "package-lock.json", package / "node_modules/.package-lock.json"
    with wanted.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
            return
        done = subprocess.run(
            [npm, "ci"], cwd=package, env=os.environ | {"npm_config_cache": str(CACHE)},
            capture_output=True, text=True, timeout=INSTALLS_IN_S, check=False,
        )  # fmt: skip
    if done.returncode:
        pytest.skip(f"needs the packages of {package.name}, and npm ci failed: {done.stderr[-300:]}")
