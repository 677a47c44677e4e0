"""The recipes of docs/recipes.md, applied and run as they stand."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from testing.stack import ADMIN_TOKEN, Stack

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
pytestmark = pytest.mark.timeout(300)


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(found)


def run(*command: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_recipes_do_what_they_say(start_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = start_stack(regions=("solo",))
    url = stack.node("solo").url
    (tmp_path / "recipes.yaml").write_text(block("yaml"))
    (tmp_path / "chat.py").write_text(block("python"))
    admin = {"TIDEGATE_URL": str(stack.admin.base_url), "TIDEGATE_ADMIN_TOKEN": ADMIN_TOKEN}
    run("-m", "tidegate", "apply", "-f", str(tmp_path / "recipes.yaml"), **admin)
    stack.put("/v1/clients/other", {"plan": "team"})  # waits until every node has it

    def left(**check: object) -> dict[str, int]:
        body = {"client": "acme", "cost": 0, "explain": True, **check}
        answer = httpx.post(f"{url}/v1/check", json=body, trust_env=False).json()
        return {limit["policy"]: limit["remaining"] for limit in answer["limits"]}

    asked = {"client": "acme", "endpoint": "search", "ip": "203.0.113.42"}
    assert httpx.post(f"{url}/v1/check", json=asked, trust_env=False).json()["allowed"]
    assert left(endpoint="search", ip="203.0.113.42")["per-client"] == 999
    assert left(endpoint="search", ip="203.0.113.42")["per-endpoint"] == 99
    assert left(endpoint="chat", ip="203.0.113.42")["per-endpoint"] == 100
    said = [run(str(tmp_path / "chat.py"), TIDEGATE_NODE_URL=url).split(":")[0].strip() for _ in range(4)]
    assert said == ["served", "served", "served", "too many requests"]
    assert left(endpoint="chat")["chat-requests"] == 0
    assert left(endpoint="chat-tokens") == {"chat-tokens": 1000 - 3 * 120}
