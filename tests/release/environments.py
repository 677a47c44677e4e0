"""Environments that hold what an artefact brings along, and nothing of this clone."""

import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PINS = ROOT / "requirements" / "local.txt"


class Environment:
    """An empty Python environment. ``make release`` installs by pip, as users do; other runs by uv, which caches."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.install_s = 0.0
        self._by_pip = "TIDEGATE_RELEASE" in os.environ
        venv.create(directory, with_pip=self._by_pip)

    def program(self, name: str) -> Path:
        return self.directory / "bin" / name

    def install(self, *what: str) -> None:
        if self._by_pip:
            command = [str(self.program("python")), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        else:
            uv = Path(sys.executable).parent / "uv"
            command = [str(uv), "pip", "install", "--quiet", "--python", str(self.program("python")), "-c", str(PINS)]
        began = time.monotonic()
        self.run(*command, *what)
        self.install_s += time.monotonic() - began

    def run(self, *command: str | Path) -> str:
        """What a command says that is run outside the clone and that finds nothing of it."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE_", "PYTHON"))}
        env.setdefault("UV_CACHE_DIR", str(ROOT / ".cache" / "uv"))
        done = subprocess.run(command, cwd=self.directory, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


class Demo(NamedTuple):
    """A running `tidegate up --demo`, ``started`` at this monotonic second."""

    environment: Environment
    output: str
    node: str
    started: float

    def key(self) -> str:
        """A client's key, as it was printed."""
        found = re.search(r"\btg_[\w-]{49}(?![\w-])", self.output)
        assert found is not None, self.output
        return found[0]
