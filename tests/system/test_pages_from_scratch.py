"""Pages that bring a configuration along, read where nothing is configured yet."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from testing.pages import blocks
from testing.stack import Stack, StartStack
from testing.terminal import Terminal

RECIPES, MIGRATE = "docs/recipes.md", "docs/migrate.md"
ENVOYS_FILE = "domain: edge\ndescriptors:\n- {key: remote_address, rate_limit: {unit: minute, requests_per_unit: 60}}\n"
KONGS_FILE = '_format_version: "3.0"\nplugins:\n- {name: rate-limiting, config: {minute: 60, policy: local}}\n'
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack(start_module_stack: StartStack) -> Stack:
    return start_module_stack(regions=("solo",), patient=True)


@pytest.fixture
def terminal(stack: Stack, tmp_path: Path) -> Iterator[Terminal]:
    with closing(Terminal(stack, tmp_path / "clone")) as opened:
        yield opened


def test_a_configuration_of_others_is_brought_along(terminal: Terminal) -> None:
    terminal.write("config/edge.yaml", ENVOYS_FILE)
    terminal.write("kong.yml", KONGS_FILE)
    ((_, printed),) = terminal.read(MIGRATE, {"diff -f tidegate.yaml": "diff -f tidegate.yaml || test $? = 2"})
    assert '"all-minute": {"limit": "60/min", "by": "ip"' in printed


def test_the_recipes_do_what_they_say(stack: Stack, terminal: Terminal) -> None:
    url = stack.node("solo").url
    ((file,), (program,)) = blocks(RECIPES, "yaml"), blocks(RECIPES, "python")

    def left(**check: object) -> dict[str, int]:
        body = {"client": "acme", "cost": 0, "explain": True, **check}
        answer = httpx.post(f"{url}/v1/check", json=body, trust_env=False).json()
        return {limit["policy"]: limit["remaining"] for limit in answer["limits"]}

    terminal.write("recipes.yaml", file.text)
    # A busy machine may take longer to answer than a client waits, who then lets the request pass.
    patient = program.text.replace('["TIDEGATE_NODE_URL"]]', '["TIDEGATE_NODE_URL"]], timeout_s=10')
    assert patient != program.text
    terminal.write("chat.py", patient)
    terminal.type("tidegate apply -f recipes.yaml\n")
    stack.put("/v1/clients/other", {"plan": "team"})  # waits until every node has it
    ((_, asked),) = terminal.read(RECIPES)
    assert '"allowed":true' in asked
    assert left(endpoint="search", ip="203.0.113.42")["per-client"] == 999
    assert left(endpoint="search", ip="203.0.113.42")["per-endpoint"] == 99
    assert left(endpoint="chat", ip="203.0.113.42")["per-endpoint"] == 100
    runs = [terminal.type(f"TIDEGATE_NODE_URL={url} python chat.py\n") for _ in range(4)]
    assert [run.split(":")[0].strip() for run in runs] == ["served", "served", "served", "too many requests"]
    assert left(endpoint="chat")["chat-requests"] == 0
    assert left(endpoint="chat-tokens") == {"chat-tokens": 1000 - 3 * 120}
