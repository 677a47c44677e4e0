"""`tidegate check` asks a node once, and a script can go by its exit code."""

import subprocess
import sys

from testing.stack import Stack
from tidegate.stack.ports import free_ports


def test_shows_every_limit_and_exits_by_the_verdict(stack: Stack) -> None:
    key = stack.client_with_limit("asked-from-shell", 1)
    url = stack.node("us-east").url
    allowed = _check("--url", url, key=key)
    assert allowed.returncode == 0, allowed.stderr
    assert "allowed" in allowed.stdout
    assert "hourly" in allowed.stdout
    denied = _check("--url", url, key=key)
    assert denied.returncode == 1, denied.stderr
    assert "denied, may pass in" in denied.stdout


def test_says_why_there_is_no_answer(stack: Stack) -> None:
    nobody = _check("--url", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert nobody.returncode == 2
    assert "no answer from" in nobody.stdout
    refused = _check("--url", stack.node("us-east").url, "--ip", "not-an-address")
    assert refused.returncode == 2
    assert "ip" in refused.stdout


def _check(*arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    # The key goes by the environment, where other users of the machine cannot read it.
    env = {"COLUMNS": "120"} | ({"TIDEGATE_API_KEY": key} if key else {})
    command = [sys.executable, "-m", "tidegate", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)
