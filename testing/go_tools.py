"""Go programs that `make go-tools` installs."""

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".cache" / "bin"


def go_tool(name: str) -> str:
    """Where a program is; skips the test where it is not installed."""
    found = shutil.which(name, path=str(FOLDER)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (make go-tools)")
    return found
