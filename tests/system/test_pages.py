"""Commands of the README, of docs/start.md and of pages on how to do things, run as they stand on a demo."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testing.stack import ADMIN_TOKEN, Stack, StartStack

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)


def blocks(page: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [text for of, text in fenced if of == language]


@pytest.fixture(scope="module")
def demo(start_module_stack: StartStack) -> Stack:
    return start_module_stack(demo=True)


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
            "TOKEN": ADMIN_TOKEN,
        }

    def __call__(self, script: str) -> str:
        script = re.sub(r"^export .*\n", "", script, flags=re.MULTILINE)  # pages say where and who: here it is known
        for port, real in self._ports.items():
            script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{real}")
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{script}"],
            cwd=self._directory, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def test_the_file_of_the_page_can_be_applied(demo: Stack, tmp_path: Path) -> None:
    """The first one here: a file removes the plans that it does not name, unless clients are on them."""
    shell = Shell(demo, tmp_path)
    (commands,) = [text for text in blocks("docs/config-file.md", "") if "tidegate apply" in text]
    shell(commands)
    assert "$schema" in json.loads((tmp_path / "tidegate.schema.json").read_text())
    exported = (tmp_path / "tidegate.yaml").read_text()
    page, *_ = blocks("docs/config-file.md", "yaml")
    (tmp_path / "page.yaml").write_text(page)
    try:
        assert "revision" in shell("tidegate apply -f page.yaml")
        assert demo.admin.get("/v1/plans/pro/limits/monthly").json()["limit"] == 5_000_000
    finally:
        (tmp_path / "before.yaml").write_text(exported)
        shell("tidegate apply -f before.yaml")


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


def test_the_commands_for_daily_work_do_what_they_say(demo: Stack, tmp_path: Path) -> None:
    shell = Shell(demo, tmp_path)
    commands, outcome = blocks("docs/command-line.md", "")[:2]
    last = shell(commands.replace("trial", "daily").replace("initech", "umbrella"))
    for line in outcome.splitlines():
        assert re.search(re.sub(r"\d+\\\.\d|revision\\ \d+", r"[^ ]+( \\d+)?", re.escape(line)), last), line


def test_a_backend_reports_its_load_as_the_page_says(demo: Stack, tmp_path: Path) -> None:
    shell = Shell(demo, tmp_path)
    (commands,) = [text for text in blocks("docs/adaptive.md", "") if "/v1/load" in text]
    set_up, _, report = commands.partition("\n\n")
    secret = re.findall(r"tgl_[\w-]+", shell(f"{set_up}\n"))[-1]
    assert json.loads(shell("sleep 1\n" + report.replace("tgl_...", secret))) == {"taken": 1}


def test_usage_is_asked_for_as_the_page_says(demo: Stack, tmp_path: Path) -> None:
    (commands,) = [text for text in blocks("docs/usage.md", "") if "tidegate usage list" in text]
    listed, _, table = Shell(demo, tmp_path)(commands.replace("\ncurl", "\necho ----\ncurl")).partition("----\n")
    assert "complete_until" in listed
    assert table.startswith("hour,plan,limit,allowed,")
