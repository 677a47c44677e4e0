"""Go programs that `make go-tools` installs."""

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".cache" / "bin"


def installed(name: str) -> str | None:
    """Where a program is; ``None`` where it is not installed."""
    return shutil.which(name, path=str(FOLDER)) or shutil.which(name)


def go_tool(name: str) -> str:
    """The same; skips the test where it is not installed."""
    found = installed(name)
    if found is None:
        pytest.skip(f"{name} is not installed (make go-tools)")
    return found
