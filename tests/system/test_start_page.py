"""docs/start.md and the first screen of the README, run as they stand on a stack with the demo."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.stack import ADMIN_TOKEN, Stack

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)


def blocks(page: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [text for of, text in fenced if of == language]


@pytest.fixture(scope="module")
def demo(start_stack: Callable[..., Stack]) -> Stack:
    return start_stack(demo=True)


class Shell:
    """Runs commands as the pages say them, but with the ports of this stack; exit codes are the caller's to judge."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._ports = {
            "8101": str(stack.node("us-east").port),
            "8102": str(stack.node("eu-west").port),
            "8000": str(stack.admin.base_url.port),
        }
        self._directory = directory
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TIDEGATE_URL": str(stack.admin.base_url),
            "TIDEGATE_ADMIN_TOKEN": ADMIN_TOKEN,
        }

    def __call__(self, script: str) -> str:
        for port, real in self._ports.items():
            script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{real}")
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{script}"],
            cwd=self._directory, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def test_the_five_minutes_go_as_they_are_told(demo: Stack, tmp_path: Path) -> None:
    shell = Shell(demo, tmp_path)
    asked, _, spent, said = shell("echo ----\n".join(blocks("docs/start.md", "bash"))).split("----\n")
    assert asked.startswith("HTTP/1.1 200 OK\n")
    head, _, body = spent[spent.index("HTTP/1.1") :].partition("\n\n")
    (shown,) = [text for text in blocks("docs/start.md", "") if "429" in text]
    for line in shown.partition("\n\n")[0].splitlines():
        expected = re.escape(line).replace("2164", r"\d+")
        assert re.search(f"^{expected}$", head, re.MULTILINE), f"not answered: {line}"
    assert json.loads(body)["error"] == "rate_limit_exceeded"
    assert "initech was denied" in said
    assert "overrides set initech hourly" in said
    assert "allowed" in said


def test_the_request_of_the_readme_is_answered_as_it_shows(demo: Stack, tmp_path: Path) -> None:
    texts = blocks("README.md", "")
    (command,) = [text for text in texts if text.startswith("curl")]
    (shown,) = [text for text in texts if text.startswith("HTTP/1.1")]
    answer = Shell(demo, tmp_path)(command.replace("203.0.113.42", "203.0.113.77"))
    figures = {"1796089441": r"\d+", "t=10": r"t=\d+"}
    for line in shown.partition("\n\n")[0].splitlines():
        expected = re.escape(line)
        for figure, pattern in figures.items():
            expected = expected.replace(re.escape(figure), pattern)
        assert re.search(f"^{expected}$", answer, re.MULTILINE), f"not answered: {line}"
    assert shown.partition("\n\n")[2].split(', "window_s"')[0].split(", ...")[0] in answer
